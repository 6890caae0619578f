#!/usr/bin/env python3
"""Planted label errors: how many of the most suspicious images of a report are images whose label was changed.

    label_errors.py --emoji EMOJI --weights WEIGHTS_FOLDER [--fraction 0.03] [--seeds 3]

Labels of a fraction of the training and validation images are changed to another class at random. A search of heads on
each backbone follows, then `tlsearch report`; its label_errors.csv is compared with what was planted. Labels that are
wrong already in the data, and images that are hard to tell, count against it.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BACKBONES = {
    "mobilenet_v2": "mobilenet_v2.pth",
    "timm/tf_efficientnet_lite0": "tf_efficientnet_lite0.pth",
    "timm/vit_small_patch14_dinov2": "vit_small_patch14_dinov2.safetensors",
}
SIZE = 98  # a multiple of the patches of 14
TOP = 30
SPACE = """name: label-errors
data: {{source: folder, path: ./images, image_size: {size}}}
weights: {{{weights}}}
space:
  backbone: [{backbones}]
  unfreeze_depth: 0
search: {{trials: {trials}, max_epochs: 3, seed: {seed}}}
"""


def plant(emoji: Path, target: Path, fraction: float, seed: int) -> set[str]:
    """Copies train and val with some images in the folder of another class; returns their keys."""
    rng, planted = random.Random(seed), set()
    classes = sorted(folder.name for folder in (emoji / "train").iterdir())
    for split in ("train", "val"):
        files = sorted((emoji / split).rglob("*.png"))
        wrong = set(rng.sample(files, round(fraction * len(files))))
        for file in files:
            own = file.parent.name
            label = rng.choice([name for name in classes if name != own]) if file in wrong else own
            copy = target / split / label / f"{own}-{file.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            if file in wrong:
                planted.add(copy.relative_to(target).as_posix())
    return planted


def suspects(folder: Path, weights: Path, seed: int) -> list[str]:
    """The keys that a report of a small search lists, the most suspicious first."""
    found = {name: file for name, file in BACKBONES.items() if (weights / file).exists()}
    (folder / "space.yaml").write_text(
        SPACE.format(
            size=SIZE,
            weights=", ".join(f"{name}: {weights / file}" for name, file in found.items()),
            backbones=", ".join(found),
            trials=2 * len(found),
            seed=seed,
        )
    )
    run = [sys.executable, "-m", "tlsearch"]
    subprocess.run([*run, "run", "space.yaml", "--name", f"seed-{seed}"], cwd=folder, check=True, capture_output=True)
    report = [*run, "report", f"seed-{seed}", "--out", "report"]
    subprocess.run(report, cwd=folder, check=True, capture_output=True)
    with (folder / "report" / "label_errors.csv").open(encoding="utf-8") as file:
        return [row["key"] for row in csv.DictReader(file)]


def main() -> None:
    """Prints a row for each seed, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--fraction", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    print(f"{'seed':>4} {'planted':>8} {'listed':>7} {f'of top {TOP}':>10} {'found':>6}")
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            planted = plant(options.emoji, folder / "images", options.fraction, seed)
            listed = suspects(folder, options.weights.resolve(), seed)
        row = {
            "seed": seed,
            "planted": len(planted),
            "listed": len(listed),
            "top": sum(key in planted for key in listed[:TOP]) / TOP,
            "found": sum(key in planted for key in listed) / len(planted),
        }
        rows.append(row)
        print(f"{seed:>4} {len(planted):>8} {len(listed):>7} {row['top']:>10.2f} {row['found']:>6.2f}", flush=True)
    print(json.dumps({"fraction": options.fraction, "top": TOP, "rows": rows}))


if __name__ == "__main__":
    main()
