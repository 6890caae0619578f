#!/usr/bin/env python3
"""What each dimension of a space is worth on one data set: a base configuration, and one change at a time.

    dimensions.py --data EMOJI --weights tf_efficientnet_lite0.pth [--seeds 3] [--epochs 6] [--quick]

Every row is trained with the same seeds as its base; its figure is the mean of the best validation accuracies. There
are two bases, the head alone and two stages with batch norm. The differences are of this data set and budget: they show
that a dimension does something, and what a search may gain from it, not which value is best elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from tlsearch.trial import run_trial

Changes = Mapping[str, Any]
IMAGE_SIZE = 96

BASES: dict[str, Changes] = {
    "head alone": {"unfreeze_depth": 0, "head_lr": 3e-3, "bn_policy": "frozen", "head_init": "random"},
    "two stages": {
        "unfreeze_depth": 2,
        "head_lr": 1e-3,
        "backbone_lr": 1e-3,
        "bn_policy": "train",
        "head_init": "random",
    },
}
_COMMON: dict[str, Changes] = {
    "head_init probe, head_lr 3e-4": {"head_init": "probe", "head_lr": 3e-4},
    "optimizer sgd, rates times 10": {"optimizer": "sgd"},
    "weight_decay 0.1": {"weight_decay": 0.1},
    "batch_size 128": {"batch_size": 128},
    "lr_schedule cosine": {"lr_schedule": "cosine"},
    "lr_schedule one_cycle": {"lr_schedule": "one_cycle"},
    "warmup_epochs 1": {"warmup_epochs": 1},
    "label_smoothing 0.1": {"label_smoothing": 0.1},
    "head_dropout 0.5": {"head_dropout": 0.5},
    "class_balance sampler": {"class_balance": "sampler"},
    "class_balance weighted_loss": {"class_balance": "weighted_loss"},
    "ema 0.98": {"ema": 0.98},
    "grad_clip 1": {"grad_clip": 1.0},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1": {"cutmix": 1.0},
    "augmentation light": {"augmentation": "light"},
    "augmentation strong": {"augmentation": "strong"},
    "bn_policy adapt": {"bn_policy": "adapt"},
    "bn_policy stats": {"bn_policy": "stats"},
}
_DEEP: dict[str, Changes] = {
    "bn_policy frozen, backbone_lr 3e-5": {"bn_policy": "frozen", "backbone_lr": 3e-5},
    "bn_policy adapt, backbone_lr 3e-5": {"bn_policy": "adapt", "backbone_lr": 3e-5},
    "backbone_lr 1e-4": {"backbone_lr": 1e-4},
    "layer_decay 0.5": {"layer_decay": 0.5},
    "unfreeze_schedule progressive": {"unfreeze_schedule": "progressive"},
    "unfreeze_depth 1": {"unfreeze_depth": 1},
    "unfreeze_depth 4": {"unfreeze_depth": 4},
    "probe, cosine, ema, light": {
        "head_init": "probe",
        "head_lr": 3e-4,
        "lr_schedule": "cosine",
        "ema": 0.98,
        "augmentation": "light",
    },
}


# What is measured again where stages train; the others act on the head above all.
_DEEP_TOO = (
    "head_init probe, head_lr 3e-4",
    "optimizer sgd, rates times 10",
    "lr_schedule cosine",
    "label_smoothing 0.1",
    "ema 0.98",
    "mixup 0.2",
    "augmentation light",
    "augmentation strong",
    "bn_policy stats",
)


class BestOf:
    """A reporter that remembers the best accuracy."""

    def __init__(self) -> None:
        self.accuracy = 0.0
        self.source = ""

    def report(self, report: EpochReport) -> Decision:
        """Never stops a trial."""
        self.accuracy = max(self.accuracy, report.metrics["val_accuracy"])
        self.source = report.source
        return Decision.CONTINUE


def rows_of(base: str) -> dict[str, Changes]:
    """The rows of a base by name; the base itself first."""
    if base == "head alone":
        return {"the base": {}, **_COMMON}
    again = {name: _COMMON[name] for name in _DEEP_TOO}
    return {"the base": {}, **again, **_DEEP}


def configuration(base: str, changes: Changes, backbone: str) -> TrialConfig:
    """The configuration of a row."""
    values = {"backbone": backbone, **BASES[base], **changes}
    if values.get("optimizer") == "sgd":
        values |= {name: 10 * values[name] for name in ("head_lr", "backbone_lr") if name in values}
    return TrialConfig(**values)


def measure(base: str, changes: Changes, arguments: argparse.Namespace, cache: str) -> dict[str, Any]:
    """Trains one row with every seed."""
    config = configuration(base, changes, arguments.backbone)
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(arguments.data), image_size=IMAGE_SIZE),
        weights={arguments.backbone: WeightsSource(kind="file", path=str(arguments.weights))},
        max_epochs=arguments.epochs,
        cache=CacheSpec(directory=cache),
    )
    best, started, reporter = [], time.perf_counter(), BestOf()
    for seed in range(arguments.seeds):
        reporter = BestOf()
        with tempfile.TemporaryDirectory() as folder:
            assignment = TrialAssignment(number=seed, seed=seed, config=config, setup=setup, directory=folder)
            outcome = run_trial(assignment, reporter)
        if outcome.error:
            print(f"  {outcome.reason}: {outcome.error}", file=sys.stderr)
        best.append(reporter.accuracy)
    return {
        "accuracies": [round(value, 4) for value in best],
        "mean": statistics.mean(best),
        "deviation": statistics.stdev(best) if len(best) > 1 else 0.0,
        "seconds": (time.perf_counter() - started) / arguments.seeds,
        "source": reporter.source,
    }


def main() -> None:
    """Trains all rows, prints a table for each base as it goes, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="the backbone's state dict")
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--bases", nargs="+", choices=sorted(BASES), default=list(BASES))
    parser.add_argument(
        "--quick", action="store_true", help="one seed, two epochs, three rows: the harness, not a figure"
    )
    arguments = parser.parse_args()
    arguments.data, arguments.weights = arguments.data.resolve(), arguments.weights.resolve()
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 2
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for base in arguments.bases:
            rows = list(rows_of(base).items())[: 3 if arguments.quick else None]
            print(
                f"\n| {base} | best val_accuracy | against the base | seconds | reads |\n"
                "| --- | --- | --- | --- | --- |"
            )
            found[base] = {}
            for name, changes in rows:
                row = found[base][name] = measure(base, changes, arguments, cache)
                change = row["mean"] - found[base]["the base"]["mean"]
                print(
                    f"| {name} | {row['mean']:.3f} ± {row['deviation']:.3f} | {change:+.3f} | {row['seconds']:.1f} "
                    f"| {row['source']} |",
                    flush=True,
                )
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    settings = {
        "backbone": arguments.backbone,
        "seeds": arguments.seeds,
        "epochs": arguments.epochs,
        "size": IMAGE_SIZE,
    }
    print(json.dumps({"benchmark": "dimensions", "machine": machine, "settings": settings, "bases": found}))


if __name__ == "__main__":
    main()
