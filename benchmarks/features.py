#!/usr/bin/env python3
"""The feature store alone: the same trials by the same code, store on against off, in CPU seconds of this process.

    features.py --data EMOJI --weights mobilenet_v2.pth [--all] [--quick]

Three lists of trials of three epochs: heads alone; heads and the last stage; heads, the last stage and the last two.
The trials of a list run one after another. With the store every trial is measured, from an empty cache, the packing of
the images and the build of the features included. Without it (`cache.features_gb: 0`) the images are packed too; of the
trials of one depth, which all cost the same, --samples are measured and their mean is taken for the rest, once for all
lists; --all measures every one, list by list. A first trial that nothing counts pays for the process's imports.

The limit is that of the forward work: a trial without the store costs E (N (f + 3 (1 - f)) + V) F, with it
E (3 N + V) (1 - f) F, and one pass to the deepest boundary (N + V) f_max F; E epochs, N and V images of train and val,
F the MACs of an image, f the share of them that is frozen. A ratio above it comes from overheads, not from sharing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tlsearch.core.types import (
    CacheSpec,
    DataSpec,
    Decision,
    EpochReport,
    TrialAssignment,
    TrialConfig,
    TrialSetup,
    WeightsSource,
)
from tlsearch.data import load_index, open_pixels, with_image_size
from tlsearch.features import measure_boundary
from tlsearch.model import build_model, resolve_weights
from tlsearch.trial import release_held, run_trial

# By list its trials by unfreeze depth, the ratio wanted, and whether that is a share of the limit.
LISTS: Mapping[str, tuple[Mapping[int, int], float, bool]] = {
    "32 heads": ({0: 32}, 30.0, False),
    "24 heads, 8 last stage": ({0: 24, 1: 8}, 4.5, False),
    "16, 12, 4 of depths 0, 1, 2": ({0: 16, 1: 12, 2: 4}, 0.8, True),
}
QUICK = {0: 2, 1: 1, 2: 1}
HEAD_LR = (1e-3, 3e-3, 1e-2, 3e-4)

Curve = tuple[float, ...]


@dataclass(kw_only=True)
class Side:
    """What the trials of one side cost and said.

    Attributes:
        seconds: CPU seconds of each trial by depth.
        packing: CPU seconds of decoding the images into the store; part of a trial's where the side has none.
        curves: Losses of training and validation, by depth and number.
        reads: Epochs by what they read and why.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    packing: float = 0.0
    curves: dict[tuple[int, int], Curve] = field(default_factory=dict)
    reads: Counter[str] = field(default_factory=Counter)

    def total(self, counts: Mapping[int, int]) -> float:
        """CPU seconds of so many trials; a depth that was sampled counts by its mean."""
        means = {depth: sum(each) / len(each) for depth, each in self.seconds.items()}
        return self.packing + sum(count * means[depth] for depth, count in counts.items())


class Listening:
    """A reporter that keeps the reports and never stops a trial."""

    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def report(self, report: EpochReport) -> Decision:
        """Goes on."""
        self.reports.append(report)
        return Decision.CONTINUE


def setup_of(options: argparse.Namespace, cache: CacheSpec, depths: tuple[int, ...]) -> TrialSetup:
    """What the trials of a side share; ``depths`` as a search would tell them."""
    return TrialSetup(
        data=DataSpec(source="folder", path=str(options.data), image_size=options.image_size),
        weights={options.backbone: WeightsSource(kind="file", path=str(options.weights))},
        max_epochs=options.epochs,
        cache=cache,
        depths=depths,
    )


def run_one(options: argparse.Namespace, setup: TrialSetup, depth: int, number: int, side: Side) -> None:
    """Trains one trial and adds it to its side."""
    config = TrialConfig(
        backbone=options.backbone,
        unfreeze_depth=depth,
        head_lr=HEAD_LR[number % len(HEAD_LR)],
        backbone_lr=1e-4 if depth else None,
        bn_policy="frozen",
    )
    reporter, start = Listening(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_trial(
            TrialAssignment(number=number, seed=number, config=config, setup=setup, directory=folder), reporter
        )
    side.seconds.setdefault(depth, []).append(time.process_time() - start)
    if outcome.error:
        raise SystemExit(f"trial {number} of depth {depth}: {outcome.reason}: {outcome.error}")
    losses = [report.metrics[name] for report in reporter.reports for name in ("train_loss", "val_loss")]
    side.curves[depth, number] = tuple(losses)
    for report in reporter.reports:
        side.reads[f"{report.source}: {report.source_reason}"] += 1


@contextmanager
def empty_cache() -> Iterator[str]:
    """A cache folder of its own; what the process holds is dropped before and after."""
    release_held()
    with tempfile.TemporaryDirectory() as folder:
        yield folder
        release_held()


def run_side(options: argparse.Namespace, counts: Mapping[int, int], *, stored: bool) -> Side:
    """So many trials of each depth, one after another, from an empty cache."""
    side = Side()
    with empty_cache() as folder:
        cache = CacheSpec(directory=folder, features_gb=None if stored else 0)
        setup = setup_of(options, cache, tuple(counts))
        if not stored:  # once for all trials, however many of them are measured
            start = time.process_time()
            transform = with_image_size(weights_of(options, setup).transform, options.image_size)
            for split in ("train", "val"):
                open_pixels(load_index(setup.data), split, transform, cache)
            side.packing = time.process_time() - start
        for depth, count in counts.items():
            for number in range(count):
                run_one(options, setup, depth, number, side)
    return side


def weights_of(options: argparse.Namespace, setup: TrialSetup) -> Any:
    """The backbone's weights."""
    return resolve_weights(options.backbone, setup.weights[options.backbone])


def limit_of(options: argparse.Namespace, counts: Mapping[int, int]) -> float:
    """What sharing the frozen work can give at most."""
    setup = setup_of(options, CacheSpec(), ())
    index = load_index(setup.data)
    num_train, num_val = len(index.splits["train"].labels), len(index.splits["val"].labels)
    num_classes, size = len(index.classes), options.image_size
    model = build_model(
        options.backbone, num_classes=num_classes, weights=weights_of(options, setup), image_size=size, seed=0
    )
    head = sum(parameter.numel() for parameter in model.head.parameters())
    prefix = {depth: measure_boundary(model, depth).macs for depth in {0, *counts}}
    whole = prefix[0] + head
    share = {depth: macs / whole for depth, macs in prefix.items()}
    alone = shared = 0.0
    for depth, count in counts.items():
        frozen, rest = share[depth], 1 - share[depth]
        alone += count * options.epochs * (num_train * (frozen + 3 * rest) + num_val)
        shared += count * options.epochs * (3 * num_train + num_val) * rest
    return alone / (shared + (num_train + num_val) * max(share[depth] for depth in counts))


def compare(options: argparse.Namespace, name: str, off: Side) -> dict[str, Any]:
    """One list: its trials with the store, against the other side; prints its row."""
    counts, wanted, of_limit = LISTS[name]
    counts = {depth: QUICK[depth] for depth in counts} if options.quick else counts
    if options.all:
        off = run_side(options, counts, stored=False)
    on = run_side(options, counts, stored=True)
    on_s, off_s = sum(map(sum, on.seconds.values())), off.total(counts)
    limit = limit_of(options, counts)
    reads = Counter(what.partition(":")[0] for what in on.reads.elements())
    difference = max(
        abs(first - second)
        for key in on.curves.keys() & off.curves.keys()
        for first, second in zip(on.curves[key], off.curves[key], strict=True)
    )
    row = {
        "trials": {str(depth): count for depth, count in counts.items()},
        "off_s": off_s,
        "on_s": on_s,
        "ratio": off_s / on_s,
        "limit": limit,
        "share_of_limit": off_s / on_s / limit,
        "wanted": f">= {wanted:.0%} of the limit" if of_limit else f">= {wanted:g}",
        "epochs_from_features": reads["features"] / reads.total(),
        "reads": dict(on.reads),
        "largest_difference_of_a_loss": difference,
        "seconds_of_a_trial": {str(depth): sum(each) / len(each) for depth, each in on.seconds.items()},
    }
    print(
        f"| {name} | {off_s:.1f} | {on_s:.1f} | {row['ratio']:.1f} | {row['wanted']} | {limit:.1f} "
        f"| {row['share_of_limit']:.0%} | {row['epochs_from_features']:.0%} | {difference:.1e} |",
        flush=True,
    )
    return row


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="the backbone's state dict")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2, help="trials of each depth measured without the store")
    parser.add_argument("--all", action="store_true", help="measure every trial without the store too")
    parser.add_argument("--quick", action="store_true", help="one or two trials of a depth: the harness, not a figure")
    options = parser.parse_args()
    options.data, options.weights = options.data.resolve(), options.weights.resolve()
    options.samples = 1 if options.quick else options.samples
    return options


def main() -> None:
    """Prints a table and one JSON line."""
    options = arguments()
    with empty_cache() as folder:  # imports, plugins and kernels that are loaded when first used
        run_one(options, setup_of(options, CacheSpec(directory=folder), (0, 1)), 1, 0, Side())
    sampled = dict.fromkeys((0, 1, 2), options.samples)
    off = Side() if options.all else run_side(options, sampled, stored=False)
    print(
        "| trials | off, CPU s | on, CPU s | ratio | wanted | limit | of it | epochs from features | losses differ by |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rows = {name: compare(options, name, off) for name in LISTS}
    print("without the store", "every trial was measured" if options.all else f"of each depth {options.samples} were")
    off_s = {str(depth): each for depth, each in off.seconds.items()}
    settings = {name: value if isinstance(value, (int, str)) else value.name for name, value in vars(options).items()}
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    record = {"benchmark": "features", "machine": machine, "settings": settings, "lists": rows}
    json.dump({**record, "seconds_of_a_trial_off": off_s, "packing_s": off.packing}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
