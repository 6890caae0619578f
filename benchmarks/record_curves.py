#!/usr/bin/env python3
"""Records the curves of real trials, for replaying searches without training (tlsearch.testing.replay).

    record_curves.py SPACE.yaml --out curves.json --count 120 [--start 0] [--data PATH] [--set KEY=VALUE ...]

Configuration number n is a function of --seed and n alone: backbones and depths in turn, so that each is covered
equally, and all else at random from the file's space. Every trial runs alone, without early stopping, to the file's
max_epochs. A curve is added to the file as soon as its trial has ended; numbers that the file has are passed over, so
an interrupted recording goes on. Costs are CPU seconds of this process (the clock of a busy machine tells little):
`epoch_seconds` of each epoch, and `opening_s` before the first one, which holds the build of stored features where this
trial was the first to need them. `work` in `about` is that of one image through each model, in million multiply-adds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tlsearch.app.catalog.provenance import environment
from tlsearch.config import SpaceFile
from tlsearch.core.errors import Diverged
from tlsearch.core.types import ModelSpec, TrialAssignment, TrialConfig
from tlsearch.data import load_index
from tlsearch.model import build_model
from tlsearch.search.seeds import derive_seed
from tlsearch.space import Space, image_sizes_of, load
from tlsearch.testing.replay import Curve, Curves, read_curves, write_curves
from tlsearch.trial import FineTuning

_DEPTHS = range(6)
_TRIES = 10_000
# What a search reads and what a plot shows; the rest would make the file large.
_KEPT = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "epoch_seconds")


class RandomPoint:
    """Proposes at random, but a backbone and a depth that are given."""

    def __init__(self, rng: random.Random, backbone: str) -> None:
        self._rng, self._backbone = rng, backbone

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Uniform."""
        return self._rng.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform, or log-uniform."""
        if step is not None:
            return low + step * self._rng.randrange(round((high - low) / step) + 1)
        if log:
            return float(low * (high / low) ** self._rng.random())
        return self._rng.uniform(low, high)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Uniform; the backbone is given."""
        return self._backbone if name == "backbone" else self._rng.choice(list(choices))


def configuration(space: Space, number: int, seed: int) -> TrialConfig:
    """Configuration ``number`` of a recording."""
    rng = random.Random(derive_seed(seed, "recorded", number))
    backbones = space.backbones()
    backbone = backbones[number % len(backbones)]
    depths = sorted({depth for depth in _DEPTHS if _has_depth(space, backbone, depth)})
    depth = depths[number // len(backbones) % len(depths)]
    for _ in range(_TRIES):
        config = space.to_config(space.suggest(RandomPoint(rng, backbone)))
        if config.unfreeze_depth == depth:
            return config
    raise AssertionError(f"no point of depth {depth} was drawn")


def _has_depth(space: Space, backbone: str, depth: int) -> bool:
    try:
        space.complete({"backbone": backbone, "unfreeze_depth": depth})
    except ValueError:
        return False
    return True


def recorded(file: SpaceFile, config: TrialConfig, seed: int, digits: int) -> Curve:
    """Trains one trial to its last epoch."""
    max_epochs = file.search.max_epochs
    columns: dict[str, list[float]] = {name: [] for name in _KEPT}
    sources: list[str] = []
    diverged_s = None
    with tempfile.TemporaryDirectory(prefix="tlsearch-record-") as directory:
        assignment = TrialAssignment(number=0, seed=seed, config=config, setup=file.trial_setup(), directory=directory)
        started = time.process_time()
        trial = FineTuning(assignment)
        opening_s = time.process_time() - started
        try:
            while trial.epochs_done < max_epochs:
                started = time.process_time()
                report = trial.step()
                metrics = {**report.metrics, "epoch_seconds": time.process_time() - started}
                for name, values in columns.items():
                    values.append(float(f"{metrics[name]:.{digits}g}"))
                sources.append(report.source)
        except Diverged:
            diverged_s = round(time.process_time() - started, 3)
        finally:
            trial.close()
    return Curve(
        config=config,
        seed=seed,
        max_epochs=max_epochs,
        columns={name: tuple(values) for name, values in columns.items()},
        opening_s=round(opening_s, 3),
        diverged_s=diverged_s,
        sources=tuple(sources),
    )


def work_of(spec: ModelSpec) -> float:
    """Million multiply-adds of one image through a model, counted by torch."""
    model = build_model(
        spec.backbone, num_classes=spec.num_classes, weights=None, image_size=spec.image_size, channels=3, seed=0
    ).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(model.blank_images(1))
    return float(counter.get_total_flops()) / 2e6


def main() -> None:
    """Records what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("space", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=120, help="how many configurations")
    parser.add_argument("--start", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digits", type=int, default=6, help="significant digits that are kept")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    file, space = load(args.space, overrides=args.set, data_path=args.data)
    index = load_index(file.data)
    about = {
        "experiment": file.name,
        "classes": len(index.classes),
        "images": {name: len(split) for name, split in index.splits.items()},
        "image_size": file.data.image_size,
        "cpus_per_trial": file.resources.cpus_per_trial,
        "costs": "CPU seconds",
        "work": {
            config.model: round(work_of(ModelSpec.of(config, file.data, len(index.classes))), 3)
            for name in space.backbones()
            for config in (TrialConfig(backbone=name, image_size=size) for size in image_sizes_of(space, name))
        },
        "space": space.to_json(),
        "versions": {name: text for name, text in environment().items() if name != "platform"},
    }
    curves = read_curves(args.out).curves if args.out.exists() else ()
    for number in range(args.start, args.start + args.count):
        config, seed = configuration(space, number, args.seed), derive_seed(args.seed, "trial", number)
        if any((curve.config, curve.seed) == (config, seed) for curve in curves):
            continue
        curve = recorded(file, config, seed, args.digits)
        curves = (*curves, curve)
        write_curves(args.out, Curves(curves=curves, about=about))
        best = max(curve.columns["val_accuracy"], default=0.0)
        cost = sum(curve.columns["epoch_seconds"]) + curve.opening_s + (curve.diverged_s or 0.0)
        print(f"{number}: {config.backbone} depth {config.unfreeze_depth} best {best:.4f} {cost:.1f} s", flush=True)
    json.dump({"curves": len(curves), "bytes": args.out.stat().st_size}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
