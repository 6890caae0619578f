#!/usr/bin/env python3
"""The training loop against the barest loop that does the same work.

    loop.py [--backbone mobilenet_v2] [--image-size 96] [--images 512] [--features 20000] [--rounds 5] [--quick]

Full: all of a backbone trains on uint8 pixels in memory. The bare loop is the textbook's: index, normalise, forward,
cross-entropy, backward, fused AdamW; channels_last as ours. Head: one linear layer on features in memory; the bare
loop is the closed-form gradient and a fused AdamW, nothing else. Both sides see the same rows in the same order, in
turns within each round; the figures are the medians of CPU seconds and their ratio, bare over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlsearch.core.types import TransformSpec, TrialConfig, WeightsSource
from tlsearch.model import StagedModel, build_model, resolve_weights
from tlsearch.train import FeatureSource, PixelSource, Runtime, Trainer

BATCH_SIZE = 32
NUM_CLASSES = 16
NUM_FEATURES = 1280


def staged(backbone: str, image_size: int, depth: int) -> StagedModel:
    """A model with random weights, ready to train."""
    weights = resolve_weights(backbone, WeightsSource(kind="none"))
    model = build_model(
        backbone, num_classes=NUM_CLASSES, weights=weights, image_size=image_size, seed=0, head_dropout=0.0
    )
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.freeze(depth, "train" if depth else "frozen")
    return model


def trainer_of(
    model: StagedModel, depth: int, *, runtime: Runtime | None = None, batch_size: int = BATCH_SIZE
) -> Trainer:
    """Ours, as a trial makes it; by default on the CPU."""
    config = TrialConfig(
        backbone=model.backbone,
        unfreeze_depth=depth,
        head_lr=1e-3,
        backbone_lr=1e-3 if depth else None,
        bn_policy="train" if depth else "frozen",
        batch_size=batch_size,
    )
    runtime = runtime or Runtime(device=torch.device("cpu"))
    return Trainer(model, runtime, config, depth=depth, num_classes=NUM_CLASSES, max_epochs=100)


def bare_full(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, mean: Tensor) -> None:
    """One epoch of the textbook's loop."""
    model.train()
    for index in torch.randperm(len(labels)).split(BATCH_SIZE):  # type: ignore[no-untyped-call]
        rows = images[index].float().div_(255).sub_(mean).div_(mean).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(rows), labels[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def bare_head(linear: nn.Linear, optimizer: torch.optim.Optimizer, rows: Tensor, labels: Tensor) -> None:
    """One epoch of a linear classifier in closed form."""
    linear.weight.grad, linear.bias.grad = torch.empty_like(linear.weight), torch.empty_like(linear.bias)
    for index in torch.randperm(len(labels), device=labels.device).split(BATCH_SIZE):  # type: ignore[no-untyped-call]
        batch, targets = rows.index_select(0, index), labels[index]
        error = torch.softmax(F.linear(batch, linear.weight, linear.bias), 1)
        error.scatter_add_(1, targets[:, None], error.new_full((len(targets), 1), -1.0))
        error /= len(targets)
        torch.mm(error.t(), batch, out=linear.weight.grad)
        linear.bias.grad = error.sum(0)
        optimizer.step()


def in_turns(sides: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each side; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = time.process_time()
            side(number + 1)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def compare_full(options: argparse.Namespace) -> dict[str, float]:
    """Full fine-tuning."""
    images = torch.randint(0, 256, (options.images, 3, options.image_size, options.image_size), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, NUM_CLASSES, (options.images,))
    half = (0.5, 0.5, 0.5)
    size = options.image_size
    transform = TransformSpec(resize_size=size, crop_size=size, mean=half, std=half)
    source = PixelSource(reason="", rows=images, labels=labels, transform=transform)
    trainer = trainer_of(staged(options.backbone, size, 5), 5)
    model = staged(options.backbone, size, 5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    mean = torch.full((1, 3, 1, 1), 0.5)
    return in_turns(
        {
            "bare": lambda epoch: bare_full(model, optimizer, images, labels, mean),
            "ours": lambda epoch: trainer.train_epoch(source, seed=0, epoch=epoch),
        },
        options.rounds,
    )


def compare_head(options: argparse.Namespace) -> dict[str, float]:
    """A head on features in memory."""
    model = staged("mobilenet_v2", 96, 0)
    rows = torch.randn(options.features, NUM_FEATURES)
    labels = torch.randint(0, NUM_CLASSES, (options.features,))
    source = FeatureSource(reason="", rows=rows, labels=labels)
    trainer = trainer_of(model, 0)
    linear = nn.Linear(NUM_FEATURES, NUM_CLASSES)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-3, fused=True)
    return in_turns(
        {
            "bare": lambda epoch: bare_head(linear, optimizer, rows, labels),
            "ours": lambda epoch: trainer.train_epoch(source, seed=0, epoch=epoch),
        },
        options.rounds,
    )


def main() -> None:
    """Prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few images, two rounds")
    options = parser.parse_args()
    if options.quick:
        options.images, options.features, options.rounds = 128, 4_000, 2
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for name, compare in (("full", partial(compare_full, options)), ("head", partial(compare_head, options))):
        seconds = compare()
        ratio = seconds["bare"] / seconds["ours"]
        results[name] = {**seconds, "ratio": ratio}
        print(f"{name:5s} bare {seconds['bare']:8.3f} s   ours {seconds['ours']:8.3f} s   bare/ours {ratio:.3f}")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    json.dump({"benchmark": "loop", "machine": machine, "settings": vars(options), **results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
