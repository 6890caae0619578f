#!/usr/bin/env python3
"""Augmentation of packed images against torchvision's transforms, image by image as a data set applies them.

    augmentation.py [--sizes 64 96 224] [--batch 64] [--rounds 7]

Both sides get the same uint8 squares, draw the same kinds of augmentation and end with the normalised batch. One
thread; the figures are the least CPU microseconds per image of all rounds, in turns, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from tlsearch.core.types import TransformSpec
from tlsearch.data import AUGMENTATIONS, augment, normalise
from tlsearch.train.cpu.heap import keep_heap


def squares(count: int, side: int) -> Tensor:
    """Made-up images whose neighbours are alike, uint8 (N, 3, S, S), channels_last."""
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0)) * 255
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return fine.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def by_torchvision(kind: str, spec: TransformSpec) -> Callable[[Tensor], Tensor]:
    """The textbook's transforms of the same strength."""
    colour = [round(255 * value) for value in spec.mean]
    steps: list[torch.nn.Module] = [v2.RandomResizedCrop(spec.crop_size, (0.7, 1.0)), v2.RandomHorizontalFlip()]
    if kind == "strong":
        steps += [v2.TrivialAugmentWide(fill=colour), v2.RandomErasing(0.1, value=colour)]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)]
    each = v2.Compose(steps)
    return lambda images: torch.stack([each(image) for image in images])


def least(tasks: list[Callable[[], object]], rounds: int) -> list[float]:
    """CPU seconds of each task, the least of all rounds."""
    best = [float("inf")] * len(tasks)
    for _ in range(rounds):
        for number, task in enumerate(tasks):
            start = time.process_time()
            task()
            best[number] = min(best[number], time.process_time() - start)
    return best


def main() -> int:
    """Prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 224])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_heap()
    rows = []
    print(f"{'px':>4} {'kind':<8} {'torchvision us':>15} {'tlsearch us':>12} {'ratio':>6}")
    for size in options.sizes:
        spec = TransformSpec(
            resize_size=round(size * 8 / 7), crop_size=size, interpolation="bilinear", crop_mode="center"
        )
        images = squares(options.batch, spec.resize_size)
        for kind in AUGMENTATIONS:
            rng, theirs = torch.Generator().manual_seed(0), by_torchvision(kind, spec)

            def ours(kind: str = kind, spec: TransformSpec = spec, rng: torch.Generator = rng) -> Tensor:
                return normalise(augment(images, kind, spec.crop_size, rng, mean=spec.mean), spec)  # noqa: B023

            plain, quick = (
                1e6 * one / len(images)
                for one in least([lambda t=theirs: t(images), ours], options.rounds)  # type: ignore[misc] # noqa: B023
            )
            rows.append({"px": size, "kind": kind, "torchvision_us": plain, "tlsearch_us": quick})
            print(f"{size:>4} {kind:<8} {plain:>15.0f} {quick:>12.0f} {plain / quick:>6.2f}")
    print(json.dumps({"torch": torch.__version__, "batch": options.batch, "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
