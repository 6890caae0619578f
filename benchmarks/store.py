#!/usr/bin/env python3
"""The packed image store against a plain DataLoader: what it costs to read a training set epoch after epoch.

    store.py --data FOLDER [--image-size 96] [--epochs 5] [--quick]

Plain: ImageFolder, the same resize and crop, and a DataLoader with two persistent workers; uint8, so that neither side
normalises. Ours: an empty cache, the build of the store, then batches gathered from it. Both give every training image
once an epoch in a random order. Wall seconds, CPU seconds of all processes, and images per CPU second; the
store's build is charged.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import load_index, open_pixels

BATCH_SIZE = 32


def read_plain(data: Path, image_size: int, epochs: int) -> int:
    """Every image in every epoch through PIL; gives how many."""
    resize = round(image_size * 256 / 224)
    transform = v2.Compose([v2.Resize(resize), v2.CenterCrop(image_size), v2.PILToTensor()])
    images = datasets.ImageFolder(data / "train", transform)
    loader = DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=2, persistent_workers=True)
    return sum(len(labels) for _ in range(epochs) for _, labels in loader)


def read_packed(data: Path, image_size: int, epochs: int) -> int:
    """The store is built, and then read in every epoch; gives how many images were read."""
    spec = TransformSpec(resize_size=round(image_size * 256 / 224), crop_size=image_size)
    pixels = open_pixels(load_index(DataSpec(source="folder", path=str(data))), "train", spec, CacheSpec())
    count = 0
    for _ in range(epochs):
        for index in torch.randperm(len(pixels.labels)).split(BATCH_SIZE):  # type: ignore[no-untyped-call]
            assert isinstance(pixels.images, torch.Tensor), "the store has no room here"
            count += len(pixels.images.index_select(0, index))
    return count


def measured(read: Callable[[], int]) -> dict[str, float]:
    """Seconds of one side, its children's included."""
    wall, cpu = time.monotonic(), cpu_s()
    count = read()
    cpu_used = cpu_s() - cpu
    return {
        "wall_s": round(time.monotonic() - wall, 2),
        "cpu_s": round(cpu_used, 2),
        "images_per_cpu_s": round(count / cpu_used),
    }


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one epoch")
    options = parser.parse_args()
    epochs = 1 if options.quick else options.epochs
    data, size = options.data.resolve(), options.image_size
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLSEARCH_CACHE_DIR"] = folder
        results = {
            "plain": measured(lambda: read_plain(data, size, epochs)),
            "store": measured(lambda: read_packed(data, size, epochs)),
        }
    for name, row in results.items():
        print(f"{name:6s}", *(f"{key} {value:>8}" for key, value in row.items()))
    ratio = results["plain"]["cpu_s"] / results["store"]["cpu_s"]
    print(f"plain/store in CPU seconds over {epochs} epochs: {ratio:.2f}")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    settings = {"epochs": epochs, "image_size": size}
    json.dump(
        {"benchmark": "store", "machine": machine, "settings": settings, **results, "cpu_ratio": ratio}, sys.stdout
    )
    print()


if __name__ == "__main__":
    main()
