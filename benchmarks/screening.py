#!/usr/bin/env python3
"""What a screen of backbones costs, what it keeps, and what it would have lost: probes against fine-tuned accuracies.

    screening.py --weights WEIGHTS --emoji EMOJI [--sets emoji digits] [--truth] [--epochs 6] [--json FILE]

The space lists twelve backbones: three with pretrained weights and nine with random ones, which stand for backbones
that do not suit the images. The screen is that of ``tlsearch run``: tasks on a Ray of its own.
With ``--truth`` each backbone is then fine-tuned with a few configurations, the same for all of its kind, and the best
validation accuracy stands for what a search would find. From these follow whether the best was pruned, how often probe
and plain size order two backbones as their best trials do, and how far fine-tuning moves them apart in log-odds, which
the screen takes for Student's t (``SPREAD``). The digits are cut by their seed, with 20 images of each class for
training.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlsearch.app.catalog.screen_file import read_screen
from tlsearch.app.searches.prepare import RunOptions, prepare
from tlsearch.app.searches.screen_backbones import screened
from tlsearch.core.types import Decision, EpochReport, Objective, Screen, TrialAssignment, TrialConfig, TrialSetup
from tlsearch.results.leaderboard.screen_notes import agreement, by_size
from tlsearch.trial import release_held, run_trial

SIZE_PX = 98  # a multiple of the patches of 14 px
REAL = {
    "mobilenet_v2": "mobilenet_v2.pth",
    "timm/tf_efficientnet_lite0": "tf_efficientnet_lite0.pth",
    "timm/vit_small_patch14_dinov2": "vit_small_patch14_dinov2.safetensors",
}
RANDOM = (
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "mnasnet0_5",
    "mobilenet_v3_large",
    "regnet_y_400mf",
    "resnet18",
    "efficientnet_b0",
)
CNN_RATES = ((0, 3e-4, None), (1, 1e-3, 1e-3), (2, 1e-3, 1e-3), (3, 1e-3, 1e-3))  # depth, of the head, of the backbone
VIT_RATES = ((0, 3e-4, None), (1, 3e-4, 3e-5), (2, 3e-4, 3e-5), (3, 3e-4, 3e-5))
RANDOM_RATES = ((5, 1e-3, 1e-3), (5, 3e-3, 3e-3))


class BestOf:
    """A reporter that remembers the best accuracy, that of the solved head before the first step among them."""

    def __init__(self) -> None:
        self.accuracy = 0.0

    def report(self, report: EpochReport) -> Decision:
        """Never stops a trial."""
        start = [] if report.start is None else [report.start.metrics["val_accuracy"]]
        self.accuracy = max(self.accuracy, report.metrics["val_accuracy"], *start)
        return Decision.CONTINUE


def space_file(name: str, seed: int, arguments: argparse.Namespace, folder: Path) -> Path:
    """The space of a set, with all backbones screened."""
    split = {"val": 0.11, "test": 0.78, "seed": seed}
    data: dict[str, Any] = {"source": "digits", "split": split}
    if name == "emoji":
        data = {"source": "folder", "path": str(arguments.emoji.absolute())}
    weights = {one: str((arguments.weights / file).absolute()) for one, file in REAL.items()}
    tree = {
        "name": f"screening-{name}",
        "data": data | {"image_size": SIZE_PX},
        "weights": weights | dict.fromkeys(RANDOM, "none"),
        "space": {"backbone": {"from": [*RANDOM, *REAL], "screen": True}},
        "search": {"trials": 1, "max_epochs": arguments.epochs},
    }
    path = folder / "space.yaml"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return path


def run_screen(path: Path) -> tuple[Screen, TrialSetup]:
    """The screening as a start of the search has it; its seconds are those on the clock, Ray's start included."""
    with prepare(RunOptions(file=path, name=f"screened-{time.time_ns()}")) as prepared:
        with screened(prepared, stop=threading.Event()) as ready:
            assert ready is not None
        screen = read_screen(prepared.entry)
    assert screen is not None and screen.decided
    return screen, prepared.file.trial_setup()


def fine_tuned(backbone: str, setup: TrialSetup) -> tuple[float, float]:
    """The best validation accuracy of a backbone's configurations, and the seconds that they took."""
    rates = VIT_RATES if "vit" in backbone else CNN_RATES if backbone in REAL else RANDOM_RATES
    best, began = 0.0, time.perf_counter()
    for depth, head_lr, backbone_lr in rates:
        config = TrialConfig(
            backbone=backbone,
            unfreeze_depth=depth,
            head_lr=head_lr,
            backbone_lr=backbone_lr,
            bn_policy=None if "vit" in backbone else "train" if depth else "frozen",
            unfreeze_schedule="at_once" if depth else None,
            batch_size=32 if "emoji" in str(setup.data.path) else 8,
            head_init="probe" if backbone in REAL else "random",
        )
        with tempfile.TemporaryDirectory() as folder:
            assignment = TrialAssignment(number=0, seed=0, config=config, setup=setup, directory=folder)
            reporter = BestOf()
            outcome = run_trial(assignment, reporter)
            assert outcome.epochs_run, outcome.error
        best = max(best, reporter.accuracy)
        release_held()
    return best, time.perf_counter() - began


def odds(accuracy: float, images: int) -> float:
    """Log-odds, half a count added to both sides."""
    right = accuracy * images
    return math.log((right + 0.5) / (images - right + 0.5))


def judge(screen: Screen, best: Mapping[str, float]) -> dict[str, Any]:
    """What the screen lost, and how far fine-tuning moved the backbones apart."""
    winner = max(best, key=best.__getitem__)
    gains = {
        one.backbone: odds(best[one.backbone], one.num_val) - odds(one.accuracy or 0.0, one.num_val)
        for one in screen.ranked
    }
    real = [gains[name] for name in REAL]
    found = agreement(screen, best, Objective.of("val_accuracy"))
    count = len(screen.kept)
    return {
        "best": winner,
        "pruned_the_best": winner in screen.pruned,
        "size_prunes_the_best": winner not in by_size(screen.ranked)[:count],
        "pairs": found.pairs,
        "by_probe": found.by_probe,
        "by_size": found.by_size,
        "gains": gains,
        "gain_spread_pretrained": statistics.stdev(real),
        "gain_spread_all": statistics.stdev(gains.values()),
    }


def measure(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One set and seed: the screen and, where it is asked for, the truth."""
    with tempfile.TemporaryDirectory() as folder:
        screen, setup = run_screen(space_file(name, seed, arguments, Path(folder)))
        best: dict[str, float] = {}
        for one in screen.ranked:
            row = [f"{one.backbone:32}{one.parameters / 1e6:8.1f} M{one.accuracy or 0.0:9.4f}{one.seconds:8.1f} s"]
            row.append("kept  " if one.backbone in screen.kept else "pruned")
            if arguments.truth:
                best[one.backbone], seconds = fine_tuned(one.backbone, setup)
                row.append(f"{best[one.backbone]:.4f} in {seconds:.0f} s")
            print("  ".join(row), flush=True)
    passes = [one.seconds for one in screen.passes]
    print(f"{name}, seed {seed}: {screen.seconds:.1f} s, passes {sum(passes):.1f} s, chance {screen.chance:.4f}")
    result: dict[str, Any] = {"set": name, "seed": seed, "seconds": screen.seconds, "passes_s": passes}
    result |= {"kept": screen.kept, "pruned": screen.pruned, "chance": screen.chance, "best": best}
    result |= {"accuracies": {one.backbone: one.accuracy for one in screen.ranked}}
    if best:
        result["judged"] = judge(screen, best)
        print(json.dumps(result["judged"], indent=1), flush=True)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each set and seed, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=["emoji", "digits"], default=["emoji", "digits"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--truth", action="store_true", help="fine-tune every backbone, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("TLSEARCH_CACHE_DIR", f"{home}/cache")
        os.environ.setdefault("TLSEARCH_STATE_DIR", f"{home}/state")
        rows = [measure(name, seed, given) for name in given.sets for seed in given.seeds]
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
