#!/usr/bin/env python3
"""What one GPU does with the training loop and with a search, against the least that the work can take.

    gpu.py [--device cuda] [--backbone mobilenet_v2] [--image-size 224] [--only loops head search] [--json OUT]

Loops: images a second of full fine-tuning in the device's own precision, on images that lie on the device. The limit is
a bare loop through ``torch.compile``; beside it the same loop eagerly, and ours eagerly and with its steps captured in
CUDA graphs. Head: rows a second of one linear layer on features. Search: `tlsearch run` on 2,000 made-up images,
head-only trials and a mix of depths, as trials an hour with the start of Ray and MLflow in it, and the same trials by
plain_ray_tune.py on the same device; beside it the fraction of the time in which the device was busy.

Without a CUDA device it says so and measures nothing. `--device cpu --quick` tries the script.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import loop
import numpy as np
import same_trials
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tlsearch.core.types import TransformSpec
from tlsearch.train import FeatureSource, PixelSource, Runtime, Trainer, open_runtime

BATCH_SIZE = 64
NUM_FEATURES = 1280
HALF = (0.5, 0.5, 0.5)
CLASSES = 10
PLAIN_SHARE = 0.25  # of the GPU for each trial of the yardstick, as its user would set it for small models
Row = dict[str, Any]


def rates(sides: Mapping[str, Callable[[int], object]], rows: int, device: torch.device, rounds: int) -> Row:
    """Rows a second of each side, in turns within a round; the median, without a first round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            wait(device)
            start = time.perf_counter()
            side(number + 1)
            wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: round(rows / statistics.median(each[1:]), 1) for name, each in seconds.items()}


def wait(device: torch.device) -> None:
    """Until the device has done all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bare_epoch(
    forward: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    runtime: Runtime,
) -> None:
    """The textbook's loop over images on the device; nothing is read back."""
    for index in torch.randperm(len(labels), device=labels.device).split(BATCH_SIZE):  # type: ignore[no-untyped-call]
        rows = images[index].float().div_(255).sub_(0.5).div_(0.5).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = forward(rows)
        F.cross_entropy(logits.float(), labels[index]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def bare_side(options: argparse.Namespace, runtime: Runtime, *, compiled: bool) -> Callable[[Tensor, Tensor], None]:
    """A model with an optimiser of its own."""
    model: nn.Module = loop.staged(options.backbone, options.image_size, 5).to(runtime.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model, dynamic=False) if compiled else model
    return lambda images, labels: bare_epoch(forward, optimizer, images, labels, runtime)


def our_side(options: argparse.Namespace, runtime: Runtime, *, captured: bool) -> Trainer:
    """A trainer as a trial makes it, with its steps captured or not."""
    model = loop.staged(options.backbone, options.image_size, 5).to(runtime.device)
    with patch("tlsearch.train.loop.trainer.captures_steps", lambda model, runtime: captured):
        return loop.trainer_of(model, 5, runtime=runtime, batch_size=BATCH_SIZE)


def loops(options: argparse.Namespace, runtime: Runtime) -> Row:
    """Images a second of full fine-tuning."""
    size, device = options.image_size, runtime.device
    images = torch.randint(0, 256, (options.images, 3, size, size), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, loop.NUM_CLASSES, (options.images,))
    transform = TransformSpec(resize_size=size, crop_size=size, mean=HALF, std=HALF)
    source = PixelSource(reason="", rows=images, labels=labels, transform=transform)
    there = images.to(device), labels.to(device)
    sides: dict[str, Callable[[int], object]] = {}
    for name, compiled in (("bare compiled", True), ("bare eager", False)):
        side = bare_side(options, runtime, compiled=compiled)
        sides[name] = lambda epoch, side=side: side(*there)  # type: ignore[misc]
    for name, captured in (("ours eager", False), ("ours in graphs", True)):
        if captured and device.type != "cuda":
            continue
        trainer = our_side(options, runtime, captured=captured)
        sides[name] = partial(trainer_epoch, trainer, source)
    return rates(sides, options.images, device, options.rounds)


def trainer_epoch(trainer: Trainer, source: Any, epoch: int) -> None:
    """One epoch of ours, its figures read at the end."""
    trainer.train_epoch(source, seed=0, epoch=epoch)


def head(options: argparse.Namespace, runtime: Runtime) -> Row:
    """Rows a second of a head on features."""
    device = runtime.device
    rows, labels = torch.randn(options.features, NUM_FEATURES), torch.randint(0, loop.NUM_CLASSES, (options.features,))
    trainer = loop.trainer_of(loop.staged("mobilenet_v2", 96, 0).to(device), 0, runtime=runtime)
    linear = nn.Linear(NUM_FEATURES, loop.NUM_CLASSES, device=device)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-3, fused=True)
    there = rows.to(device), labels.to(device)
    sides: dict[str, Callable[[int], object]] = {
        "bare closed form": lambda epoch: loop.bare_head(linear, optimizer, *there),
        "ours": partial(trainer_epoch, trainer, FeatureSource(reason="", rows=rows, labels=labels)),
    }
    return rates(sides, options.features, device, options.rounds)


def search(options: argparse.Namespace, runtime: Runtime) -> Row:
    """Trials an hour of whole searches, and of the yardstick's."""
    on_gpu = runtime.device.type == "cuda"
    with tempfile.TemporaryDirectory() as folder, busy_fraction(runtime.device) as busy:
        root = Path(folder)
        weights = root / "mobilenet_v2.pth"
        torch.save(same_weights(), weights)
        write_images(root / "data", options.search_images)
        arguments = argparse.Namespace(
            data=root / "data",
            weights=weights,
            cpus=options.cpus,
            gpus_per_trial=PLAIN_SHARE if on_gpu else 0.0,
            quick=options.quick,
        )
        rows = [same_trials.compare(name, arguments) for name in ("head", "mix")]
    result: Row = {"busy": round(statistics.mean(busy), 3) if busy else None}
    for row in rows:
        for side in ("tlsearch", "plain"):
            result[f"{row['set']}, {side}, trials/h"] = round(3600 * row["trials"] / row[f"{side}_wall_s"])
    return result


def same_weights() -> dict[str, Tensor]:
    """Random weights of mobilenet_v2: speed does not depend on them."""
    from torchvision.models import mobilenet_v2

    return dict(mobilenet_v2().state_dict())


def write_images(folder: Path, count: int) -> None:
    """Images of noise on a colour of their class: 4 in 5 in train/, the others in val/."""
    rng = np.random.default_rng(0)
    for number in range(count):
        label = number % CLASSES
        pixels = rng.integers(0, 128, (96, 96, 3), dtype=np.uint8)
        pixels[..., label % 3] += np.uint8(12 * label)
        path = folder / ("val" if number // CLASSES % 5 == 4 else "train") / f"class{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@contextmanager
def busy_fraction(device: torch.device) -> Iterator[list[float]]:
    """Samples the device's utilization while the body runs; stays empty where NVIDIA's library tells nothing."""
    seen: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while device.type == "cuda" and not ended.wait(0.2):
            try:
                seen.append(torch.cuda.utilization(device) / 100)
            except Exception as error:
                print(f"no utilization: {error}", file=sys.stderr)
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


PARTS: Mapping[str, Callable[[argparse.Namespace, Runtime], Row]] = {"loops": loops, "head": head, "search": search}


def main() -> None:
    """Prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--cpus", type=int, default=torch.get_num_threads(), help="of the yardstick's Ray")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="few images and trials: the script, not a figure")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here: nothing is measured")
        return
    quick = options.quick
    options.images, options.features, options.rounds = (128, 2_000, 1) if quick else (2_048, 50_000, 5)
    options.search_images = 100 if quick else 2_000
    torch.manual_seed(0)
    runtime = open_runtime(options.device)
    results = {}
    for name in options.only:
        results[name] = PARTS[name](options, runtime)
        for key, value in results[name].items():
            print(f"{name:7} {key:28} {value}", flush=True)
    device = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else platform.machine()
    machine = {"device": device, "precision": runtime.precision, "torch": torch.__version__}
    text = json.dumps({"benchmark": "gpu", "machine": machine, "quick": quick, **results})
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
