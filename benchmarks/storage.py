#!/usr/bin/env python3
"""What trials write into a search's storage: bytes that this process writes for each trial, and what then lies there.

    storage.py [--backbone resnet50] [--depth 0] [--trials 10] [--epochs 3] [--alone]

Trains in this process, one after the other, as a worker of a search does; the weights are random ones from a file, the
images noise. After each trial all models but the best three are evicted. `--alone`: each trial writes what stands still
into its own folder, as a trial outside of a search does and as those of searches did before. Bytes are those of Linux's
`wchar` for this process, without the caches, which a warm-up trial writes. Last, a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from tlsearch.core.files import folder_bytes
from tlsearch.core.layout import evict_trial
from tlsearch.core.types import CacheSpec, DataSpec, TrialAssignment, TrialConfig, TrialSetup, WeightsSource
from tlsearch.trial import FineTuning

NUM_CLASSES, NUM_IMAGES, SIDE, KEPT = 4, 8, 64, 3


def written_bytes() -> int:
    """What this process has written so far, to files and elsewhere."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["wchar"])


def write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(NUM_CLASSES):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for number in range(NUM_IMAGES):
                pixels = rng.integers(0, 160, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[..., label % 3] += np.uint8(30 * (1 + label // 3))
                Image.fromarray(pixels).save(folder / f"{number}.png")


def train(assignment: TrialAssignment) -> float:
    """One trial to its end; its best value."""
    trial = FineTuning(assignment)
    while trial.epochs_done < assignment.setup.max_epochs:
        trial.step()
    trial.close()
    assert trial.best_value is not None
    return trial.best_value


def measure(options: argparse.Namespace, root: Path) -> dict[str, object]:
    """Trains the trials."""
    write_images(root / "images")
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(options.backbone).state_dict(), root / "weights.pth")
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(root / "images"), image_size=SIDE),
        weights={options.backbone: WeightsSource(kind="file", path=str(root / "weights.pth"))},
        max_epochs=options.epochs,
        cache=CacheSpec(directory=str(root / "cache")),
    )
    config = TrialConfig(
        backbone=options.backbone, unfreeze_depth=options.depth, backbone_lr=1e-5 if options.depth else None
    )
    train(TrialAssignment(number=0, seed=0, config=config, setup=setup, directory=str(root / "warm-up")))
    search, values, written, seconds = root / "search", dict[int, float](), list[int](), list[float]()
    for number in range(options.trials):
        before, began = written_bytes(), time.perf_counter()
        rate = 10 ** (-4 + 3 * number / max(1, options.trials - 1))
        directory = str(search / "trials" / str(number))
        values[number] = train(
            TrialAssignment(
                number=number,
                seed=number,
                config=replace(config, head_lr=rate),
                setup=setup,
                directory=directory,
                shares=not options.alone,
            )
        )
        written.append(written_bytes() - before)
        seconds.append(time.perf_counter() - began)
        for lost in sorted(values, key=lambda one: (-values[one], one))[KEPT:]:
            evict_trial(search / "trials" / str(lost))
    later = written[1:] or written
    return {
        "backbone": options.backbone,
        "depth": options.depth,
        "trials": options.trials,
        "first_bytes": written[0],
        "median_later_bytes": statistics.median(later),
        "most_later_bytes": max(later),
        "all_bytes": sum(written),
        "for_1000_trials_bytes": written[0] + 999 * statistics.fmean(later),
        "left_bytes": folder_bytes(search),
        "left_shared_bytes": folder_bytes(search / "frozen"),
        "median_trial_s": statistics.median(seconds),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tls-") as folder:
        os.environ["TLSEARCH_CACHE_DIR"] = f"{folder}/cache"
        row = measure(options, Path(folder))
    for name, value in row.items():
        print(f"{name:24} {value / 1e6:,.3f} MB" if name.endswith("bytes") else f"{name:24} {value}")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
