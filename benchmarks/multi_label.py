#!/usr/bin/env python3
"""Images with several labels: `tlsearch` against a plain loop of torch, on scenes of real images.

    multi_label.py --emoji EMOJI --weights WEIGHTS [--images 600] [--epochs 4] [--seeds 3] [--json FILE]

A scene holds none to three emoji, each of a class of its own, in the four quarters of a canvas; those of train, val
and test come from the splits of the emoji. Both sides fine-tune the whole of a MobileNetV2 with its ImageNet weights,
with the same optimizer, rates, batches and epochs, and a random head; the plain loop is written as in torch's
tutorials. The best epoch by val mAP counts, and its mAP on the test scenes. The rows below are what else the trials of
a search can do in the same epochs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
import yaml
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import nn

import tlsearch
from tlsearch.data import ImageIndex, load_index, open_pixels
from tlsearch.results import load_model, logits_on
from tlsearch.train import read_model_meta

QUARTER, MARGIN = 48, 7  # pixels: the evaluation's crop leaves the margin out
SIZE_PX = 2 * QUARTER
HEAD_LR, BACKBONE_LR, BATCH = 1e-3, 1e-4, 16
MOST = 3  # emoji of a scene

Figures = tuple[float, ...]

TRIALS: Mapping[str, Mapping[str, object]] = {
    "tlsearch, the same": {"head_init": "random"},
    "head alone, from the probe": {"head_init": "probe", "unfreeze_depth": 0},
    "ridge on frozen features": {"head": "ridge", "unfreeze_depth": 0, "head_penalty": 0.1},
}


def write_scenes(emoji: Path, out: Path, *, num_train: int, seed: int = 0) -> Path:
    """Writes the scenes and their table: a third as many of val and of test as of train."""
    rng, lines = np.random.default_rng(seed), ["path,label,split"]
    for split, count in {"train": num_train, "val": num_train // 3, "test": num_train // 3}.items():
        files = {folder.name: sorted(folder.glob("*.png")) for folder in sorted((emoji / split).iterdir())}
        (out / split).mkdir(parents=True)
        for number in range(count):
            classes = sorted(rng.choice(sorted(files), size=rng.integers(MOST + 1), replace=False).tolist())
            scene = Image.new("RGB", (SIZE_PX + 2 * MARGIN,) * 2, "white")
            for name, place in zip(classes, rng.permutation(4), strict=False):
                one = Image.open(files[name][rng.integers(len(files[name]))]).convert("RGBA").resize((QUARTER,) * 2)
                corner = (MARGIN + QUARTER * int(place % 2), MARGIN + QUARTER * int(place // 2))
                scene.paste(one, corner, one)
            scene.save(out / split / f"{number:04d}.png")
            lines.append(f"{split}/{number:04d}.png,{'|'.join(classes)},{split}")
    (out / "scenes.csv").write_text("\n".join(lines) + "\n")
    return out / "scenes.csv"


def plain_loop(index: ImageIndex, weights: Path, setup: object, *, epochs: int, seed: int) -> tuple[float, float]:
    """The best epoch's mAP on val, and the mAP on test at it."""
    torch.manual_seed(seed)
    model = torchvision.models.mobilenet_v2()
    state = torch.load(weights / "mobilenet_v2.pth", weights_only=True)
    model.load_state_dict(state, strict=False)  # with or without ImageNet's own classifier, which goes
    model.classifier[1] = nn.Linear(model.last_channel, len(index.classes))
    groups = [
        {"params": model.features.parameters(), "lr": BACKBONE_LR},
        {"params": model.classifier.parameters(), "lr": HEAD_LR},
    ]
    optimizer, loss = torch.optim.AdamW(groups, weight_decay=1e-4), nn.BCEWithLogitsLoss()
    images = {split: _normalised(index, split, setup) for split in ("train", "val", "test")}
    labels = {split: torch.from_numpy(index.label_array(split)) for split in images}
    found = []
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(labels["train"])).split(BATCH):
            optimizer.zero_grad()
            loss(model(images["train"][rows]), labels["train"][rows]).backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode():
            scores = {split: torch.cat([model(part) for part in images[split].split(64)]) for split in ("val", "test")}
        found.append(tuple(average_precision_score(labels[split], scores[split]) for split in ("val", "test")))
    return max(found)


def _normalised(index: ImageIndex, split: str, setup: object) -> torch.Tensor:
    pixels = torch.as_tensor(np.array(open_pixels(index, split, *setup).images)).float() / 255  # type: ignore[misc]
    spec = setup[0]  # type: ignore[index]
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def search(table: Path, weights: Path, folder: Path, *, epochs: int, seeds: int) -> Mapping[str, list[Figures]]:
    """For each row of ``TRIALS`` and seed: mAP on val and on test, micro F1 on test at a half and at the thresholds."""
    base = {"unfreeze_depth": 5, "head_lr": HEAD_LR, "backbone_lr": BACKBONE_LR, "bn_policy": "train"}
    entries = [{**(base if "unfreeze_depth" not in row else {}), **row} for row in TRIALS.values()]
    tree = {
        "name": "scenes",
        "data": {"source": "manifest", "path": str(table), "task": "multi_label", "image_size": SIZE_PX},
        "weights": {"mobilenet_v2": str(weights / "mobilenet_v2.pth")},
        "space": {
            "backbone": "mobilenet_v2",
            "unfreeze_depth": [0, 5],
            "head": ["linear", "ridge"],
            "head_penalty": {"log": [1e-3, 10]},
            "head_lr": {"log": [1e-4, 1e-1]},
            "backbone_lr": {"log": [1e-5, 1e-2]},
            "bn_policy": ["frozen", "train"],
            "head_init": ["random", "probe"],
            "batch_size": BATCH,
        },
        "search": {
            "sampler": "fixed",
            "start_with": entries,
            "seeds": seeds,
            "max_epochs": epochs,
            "scheduler": "none",
        },
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "keep_best": 1000},
        "storage": str(folder / "runs"),
    }
    (folder / "space.yaml").write_text(yaml.safe_dump(tree))
    found = tlsearch.run(folder / "space.yaml")
    index = load_index(tlsearch.load_space(folder / "space.yaml").file.data)
    rows: dict[str, list[Figures]] = {name: [] for name in TRIALS}
    for trial in found.trials():
        best = Path(found.directory) / "trials" / str(trial.number) / "best"
        rows[list(TRIALS)[trial.number % len(TRIALS)]].append(_figures(best, index))
    return rows


def _figures(best: Path, index: ImageIndex) -> Figures:
    model, labels = load_model(best), index.label_array("test")
    scores = logits_on(model, index, "test").double().numpy()
    said = model.task.probabilities(scores) > np.array(model.raw_thresholds)
    micro = [2 * (one & (labels > 0)).sum() / (one.sum() + labels.sum()) for one in (scores > 0, said)]
    return read_model_meta(best).value, average_precision_score(labels, scores), *map(float, micro)


def _deviation(values: tuple[float, ...]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = write_scenes(options.emoji, folder / "scenes", num_train=options.images)
        began = time.perf_counter()
        rows = dict(search(table, options.weights, folder, epochs=options.epochs, seeds=options.seeds))
        searched_s = time.perf_counter() - began
        model = load_model(next((folder / "runs").glob("*/trials/0/best")))
        index = load_index(tlsearch.load_space(folder / "space.yaml").file.data)
        cache = tlsearch.load_space(folder / "space.yaml").file.cache
        loops = [
            plain_loop(index, options.weights, (model.meta.transform, cache), epochs=options.epochs, seed=seed)
            for seed in range(options.seeds)
        ]
    rows = {"plain loop": loops, **rows}
    counts = f"{options.images} training scenes, {options.epochs} epochs, {options.seeds} seeds"
    print(f"{counts}; search {searched_s:.0f} s")
    print(f"{'':28} {'val mAP':>15} {'test mAP':>15} {'test micro F1: 0.5':>19} {'thresholds':>15}")
    for name, values in rows.items():
        cells = [f"{statistics.fmean(one):.3f} ±{_deviation(one):.3f}" for one in zip(*values, strict=True)]
        print(f"{name:28}", *(f"{cell:>15}" for cell in cells))
    if options.json is not None:
        options.json.write_text(json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, "rows": rows}))


if __name__ == "__main__":
    main()
