#!/usr/bin/env python3
"""What each way to adapt trainable stages is worth with few images: accuracies, time, and what is on disk.

    adapters.py --data EMOJI --weights vit_small_patch14_dinov2.safetensors --images 300 0 [--seeds 3] [--quick]

Each row trains with each rate of its grid and the first seed, and then with the rate of the best validation accuracy
and the other seeds: as a search would choose. Its figures are means over the seeds of the best epoch's model.
``--images`` draws that number of training images, equally of each class; 0 takes all. Only models of the chosen rate
see the test images.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlsearch.core.types import CacheSpec, DataSpec, TrialAssignment, TrialConfig, TrialSetup, WeightsSource
from tlsearch.data import load_index, open_pixels
from tlsearch.train import PixelSource, Runtime, evaluate
from tlsearch.trial import BEST_FOLDER, RUNNING_FOLDER, FineTuning, load_trained

BACKBONE = "timm/vit_small_patch14_dinov2"
IMAGE_SIZE = 98
METHODS: Mapping[str, tuple[float, ...]] = {  # rates of the backbone, the likeliest first
    "head only": (0.0,),
    "none": (3e-5, 1e-5, 1e-4),
    "lora": (1e-3, 3e-4, 3e-3),
    "ssf": (3e-3, 1e-3, 1e-2),
    "bitfit": (3e-3, 1e-3, 1e-2),
    "norm": (3e-3, 1e-3, 1e-2),
}


def draw(data: Path, num_images: int, target: Path) -> Path:
    """Links to ``num_images`` of the training images, all where it is 0, and to those of the other splits."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        labels = sorted(path for path in (data / split).iterdir() if path.is_dir())
        counts = [num_images // len(labels) + (place < num_images % len(labels)) for place in range(len(labels))]
        for label, count in zip(labels, counts, strict=True):
            files = sorted(path for path in label.iterdir() if path.is_file())
            if split == "train" and num_images:
                files = [files[place] for place in sorted(rng.permutation(len(files))[:count])]
            (target / split / label.name).mkdir(parents=True)
            for file in files:
                (target / split / label.name / file.name).symlink_to(file)
    return target


def configuration(method: str, rate: float, arguments: argparse.Namespace, num_train: int) -> TrialConfig:
    """The trial of a row: the head starts from the linear probe, and rates fall along a cosine."""
    config = TrialConfig(
        backbone=BACKBONE,
        unfreeze_depth=arguments.depth,
        head_lr=3e-4,
        backbone_lr=rate,
        batch_size=32 if num_train >= 512 else 16,
        lr_schedule="cosine",
        head_init="probe",
        unfreeze_schedule="at_once",
    )
    if method == "head only":
        return replace(config, unfreeze_depth=0, backbone_lr=None, unfreeze_schedule=None)
    return replace(config, adapt=method, lora_rank=arguments.rank if method == "lora" else None)


def train(config: TrialConfig, setup: TrialSetup, seed: int, folder: Path) -> dict[str, Any]:
    """One trial; its seconds are CPU seconds of an epoch, which other programs lengthen less than those of the wall."""
    assignment = TrialAssignment(number=seed, seed=seed, config=config, setup=setup, directory=str(folder))
    trial = FineTuning(assignment)
    began = time.process_time()
    for _ in range(setup.max_epochs):
        trial.step()
    seconds = (time.process_time() - began) / setup.max_epochs
    trial.save()
    running = sum(one.stat().st_size for one in (folder / RUNNING_FOLDER).glob("state-*"))
    moving = sum(one.stat().st_size for one in (folder / BEST_FOLDER).glob("weights-*"))
    trained = sum(one.numel() for one in trial.model.trainable_parameters().values())
    value, epoch, source = trial.best_value, trial.best_epoch, trial.reports[-1].source
    last = trial.reports[-1].metrics["val_accuracy"]
    trial.close()
    return {
        "val": value,
        "last": last,
        "epoch": epoch,
        "seconds": seconds,
        "source": source,
        "trained": trained,
        "running_bytes": running,
        "moving_bytes": moving,
    }


def test_accuracy(folder: Path, setup: TrialSetup) -> float:
    """Of the best epoch's model on the test images."""
    model, meta = load_trained(folder / BEST_FOLDER)
    index = load_index(setup.data)
    pixels = open_pixels(index, "test", meta.transform, setup.cache)
    source = PixelSource(
        reason="", rows=pixels.images, labels=pixels.labels, transform=meta.transform, augmentation="none"
    )
    return evaluate(model, source, Runtime(device=torch.device("cpu")), depth=5).metrics["val_accuracy"]


def measure(method: str, setup: TrialSetup, num_train: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: the rate is chosen by the first seed, and the others repeat it."""
    tried: dict[float, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for rate in METHODS[method][: arguments.rates]:
            config = configuration(method, rate, arguments, num_train)
            tried[rate] = train(config, setup, 0, Path(scratch) / f"{rate}")
        # By the last epoch: by the best one, trials that never beat their probe would all be equal.
        rate = max(tried, key=lambda one: (tried[one]["val"], tried[one]["last"]))
        trials, folders = [tried[rate]], [Path(scratch) / f"{rate}"]
        config = configuration(method, rate, arguments, num_train)
        for seed in range(1, arguments.seeds):
            folders.append(Path(scratch) / f"seed-{seed}")
            trials.append(train(config, setup, seed, folders[-1]))
        test = [test_accuracy(folder, setup) for folder in folders]
    return {
        **trials[0],
        "rate": rate,
        "rates": {f"{one:g}": (row["val"], row["last"]) for one, row in tried.items()},
        "val": [row["val"] for row in trials],
        "last": [row["last"] for row in trials],
        "epoch": [row["epoch"] for row in trials],
        "test": test,
        "seconds": statistics.median(row["seconds"] for row in trials),
    }


def line(method: str, row: Mapping[str, Any]) -> str:
    """The row of a table."""
    cells = [
        method,
        f"{row['rate']:g}" if row["rate"] else "",
        f"{row['trained']:,}",
        *(_spread(row[key]) for key in ("val", "last", "test")),
        f"{row['seconds']:.1f}",
        f"{row['moving_bytes'] / 1e6:.2f}",
        f"{row['running_bytes'] / 1e6:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.3f}"


HEADER = """| adapt | backbone_lr | trained | best val | last val | test | CPU s, epoch | model MB | resume MB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    """Trains all rows, prints a table for each number of images as it goes, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, val/ and test/")
    parser.add_argument("--weights", type=Path, required=True, help="the backbone's safetensors")
    parser.add_argument("--images", type=int, nargs="+", default=[300, 0])
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=int, default=3, help="of each grid, the first ones")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="one seed, one rate, one epoch: the harness, not a figure")
    arguments = parser.parse_args()
    data, weights = arguments.data.resolve(), arguments.weights.resolve()
    if arguments.quick:
        arguments.seeds, arguments.epochs, arguments.rates = 1, 1, 1
    found: dict[str, dict[str, Any]] = {}
    for num_images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            images = draw(data, num_images, Path(folder) / "images")
            setup = TrialSetup(
                data=DataSpec(source="folder", path=str(images), image_size=IMAGE_SIZE),
                weights={BACKBONE: WeightsSource(kind="file", path=str(weights))},
                max_epochs=arguments.epochs,
                cache=CacheSpec(directory=f"{folder}/cache"),
            )
            num_train = len(load_index(setup.data).splits["train"])
            print(f"\n{num_train} training images\n\n{HEADER}", flush=True)
            found[str(num_train)] = {}
            for method in arguments.methods:
                row = found[str(num_train)][method] = measure(method, setup, num_train, arguments)
                print(line(method, row), flush=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    settings = {name: getattr(arguments, name) for name in ("depth", "rank", "seeds", "rates", "epochs")}
    print(json.dumps({"benchmark": "adapters", "machine": machine, "settings": settings, "images": found}))


if __name__ == "__main__":
    main()
