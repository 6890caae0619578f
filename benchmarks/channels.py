#!/usr/bin/env python3
"""What images of other channels and of 16 bits are worth, made from one set of pictures.

    channels.py --data EMOJI --weights mobilenet_v2.pth [--seeds 3] [--epochs 2] [--quick]

Sets are made from the pictures: grey ones; five channels (red, green, blue, transparency and edges) as arrays; and grey
ones whose values lie within 256 of the 65,536 levels of 16 bits. Each is trained with the stem's weights adapted,
with a random stem in their place, and, as far as 8 bits can hold it, as RGB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

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
from tlsearch.data import find_pixels, load_index, measure_channels
from tlsearch.model.staging import stem_channels
from tlsearch.trial import release_held, run_trial

IMAGE_SIZE = 64
BAND = 30_000  # where the values of the narrow set begin
CONFIGS: dict[str, dict[str, Any]] = {
    "head alone": {"unfreeze_depth": 0, "head_lr": 1e-3, "bn_policy": "frozen"},
    "all stages": {"unfreeze_depth": 5, "head_lr": 1e-3, "backbone_lr": 3e-4, "bn_policy": "train"},
}
Make = Callable[[Image.Image], NDArray[Any]]


def grey(image: Image.Image) -> NDArray[np.uint8]:
    """Grey as people see it, transparency on white."""
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("L"))


def five_channels(image: Image.Image) -> NDArray[np.uint8]:
    """RGBA and the strength of edges."""
    levels = grey(image).astype(np.float32)
    down, right = np.gradient(levels)
    edges = np.hypot(down, right).clip(0, 255).astype(np.uint8)
    return np.concatenate([np.asarray(image.convert("RGBA")), edges[..., None]], axis=2)


def narrow(image: Image.Image) -> NDArray[np.uint16]:
    """Grey of 16 bits within a narrow band."""
    return (BAND + grey(image).astype(np.uint16)).astype(np.uint16)


def colours(image: Image.Image) -> NDArray[np.uint8]:
    """RGB as people see it."""
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


SETS: dict[str, tuple[Make, str]] = {
    "colours": (colours, ".png"),
    "grey": (grey, ".png"),
    "five": (five_channels, ".npy"),
    "narrow": (narrow, ".png"),
}
# By set: the rows, each with the channels and bits that it is read as (None: its own), and whether the stem is random.
ROWS: dict[str, dict[str, tuple[int | None, int | None, bool]]] = {
    "colours": {"RGB": (None, None, False)},
    "grey": {"RGB, repeated": (3, 8, False), "adapted stem": (1, None, False), "random stem": (1, None, True)},
    "five": {"adapted stem": (None, None, False), "random stem": (None, None, True)},
    "narrow": {"8 bits": (3, 8, False), "16 bits": (None, None, False), "16 bits, random stem": (None, None, True)},
}


def write_set(name: str, source: Path, target: Path) -> None:
    """Writes train and val of a set."""
    make, suffix = SETS[name]
    for path in sorted(one for split in ("train", "val") for one in (source / split).rglob("*.png")):
        place = (target / path.relative_to(source)).with_suffix(suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            values = make(image)
        if suffix == ".npy":
            np.save(place, values)
        else:
            Image.fromarray(values).save(place)


@contextmanager
def stem_of(random: bool, seed: int) -> Iterator[None]:
    """Adapts stems as the library does, or gives them random weights."""

    def drawn(weights: torch.Tensor, channels: int) -> torch.Tensor:
        fresh = torch.empty(len(weights), channels, *weights.shape[2:])
        generator = torch.Generator().manual_seed(seed)
        return torch.nn.init.kaiming_uniform_(fresh, a=5**0.5, generator=generator).to(weights.device)

    with mock.patch.object(stem_channels, "adapted_weights", drawn if random else stem_channels.adapted_weights):
        yield


class BestOf:
    """Remembers the best validation accuracy, that of the solved head included."""

    def __init__(self) -> None:
        self.accuracy = 0.0

    def report(self, report: EpochReport) -> Decision:
        """Keeps the report's accuracy if it is better."""
        starts = [] if report.start is None else [report.start.metrics["val_accuracy"]]
        self.accuracy = max(self.accuracy, report.metrics["val_accuracy"], *starts)
        return Decision.CONTINUE


def data_of(folder: Path, channels: int | None, bits: int | None) -> DataSpec:
    """The set with its channels as a search would find and keep them."""
    spec = DataSpec(source="folder", path=str(folder), image_size=IMAGE_SIZE, channels=channels, bits=bits)
    index = load_index(spec)
    pixels = find_pixels(index, spec)
    if pixels.is_rgb:
        return spec
    mean, std = measure_channels(replace(index, pixels=pixels))
    return replace(spec, channels=pixels.channels, bits=pixels.bits, mean=mean, std=std)


def measure(data: DataSpec, name: str, random: bool, arguments: argparse.Namespace, cache: str) -> list[float]:
    """The best validation accuracy of each seed."""
    setup = TrialSetup(
        data=data,
        weights={"mobilenet_v2": WeightsSource(kind="file", path=str(arguments.weights))},
        max_epochs=arguments.epochs,
        cache=CacheSpec(directory=cache),
    )
    found = []
    for seed in range(arguments.seeds):
        release_held()
        reporter = BestOf()
        with stem_of(random, seed), tempfile.TemporaryDirectory() as folder:
            config = TrialConfig(backbone="mobilenet_v2", **CONFIGS[name])
            outcome = run_trial(
                TrialAssignment(number=seed, seed=seed, config=config, setup=setup, directory=folder), reporter
            )
        if outcome.error:
            raise SystemExit(f"{outcome.reason}: {outcome.error}")
        found.append(round(reporter.accuracy, 4))
    return found


def main() -> None:
    """Trains all rows, prints a table as it goes, and last one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of PNG with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="the state dict of mobilenet_v2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch: the harness, not a figure")
    arguments = parser.parse_args()
    arguments.data, arguments.weights = arguments.data.resolve(), arguments.weights.resolve()
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 1
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    print(f"| set | read as | {' | '.join(CONFIGS)} |\n| --- | --- |{' --- |' * len(CONFIGS)}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.sets:
            write_set(kind, arguments.data, Path(folder, kind))
            for row, (channels, bits, random) in ROWS[kind].items():
                data = data_of(Path(folder, kind), channels, bits)
                values = {name: measure(data, name, random, arguments, f"{folder}/cache") for name in CONFIGS}
                found.setdefault(kind, {})[row] = values
                cells = [
                    f"{statistics.mean(one):.3f} ± {statistics.stdev(one) if len(one) > 1 else 0:.3f}"
                    for one in values.values()
                ]
                print(f"| {kind} | {row} | {' | '.join(cells)} |", flush=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    settings = {"seeds": arguments.seeds, "epochs": arguments.epochs, "size": IMAGE_SIZE}
    print(json.dumps({"benchmark": "channels", "machine": machine, "settings": settings, "sets": found}))


if __name__ == "__main__":
    main()
