#!/usr/bin/env python3
"""Tiny data: what the default search of 8 trials gives a user, against logistic regression on the same frozen features.

    small_data.py --weights mobilenet_v2.pth --emoji EMOJI [--sets emoji-10 emoji-20 digits-10] [--seeds 5]

For each set and seed 10 or 20 images of each class are drawn; all others are the truth. Ours is what a user does: a
folder with train/ and test/, `tlsearch run` with a space that leaves all but the usual dimensions to their defaults;
then `tlsearch promote`, which looks at the test images once. The rival is scikit-learn's LogisticRegression on the
features of the same backbone, on all drawn images, its penalty by cross-validation on them. Beside both stands the best
trial by validation, as `results` ranks it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV

from tlsearch.core.types import CacheSpec, DataSpec, WeightsSource
from tlsearch.data import load_index, normalise, open_pixels, with_image_size
from tlsearch.model import build_model, resolve_weights

SETS = {"emoji-10": ("emoji", 10), "emoji-20": ("emoji", 20), "digits-10": ("digits", 10)}
PENALTIES = np.logspace(-4, 2, 7)
IMAGE_SIZE = 96
SPACE = """name: small-data
data: {{source: folder, path: ./images, image_size: {size}}}
weights: {{mobilenet_v2: {weights}}}
space:
  backbone: mobilenet_v2
  unfreeze_depth: {{int: [0, 3]}}
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  backbone_lr: {{log: [1.0e-6, 1.0e-3]}}
  bn_policy: [frozen, train]
search: {{trials: {trials}, seed: {seed}}}
"""


def write_all(name: str, emoji: Path, target: Path) -> Path:
    """All images of a set, one folder for each class, as opaque PNGs."""
    for number, (label, image) in enumerate(_images(name, emoji)):
        (target / label).mkdir(parents=True, exist_ok=True)
        image.save(target / label / f"{number:05d}.png")
    return target


def _images(name: str, emoji: Path) -> Iterator[tuple[str, Image.Image]]:
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        for pixels, label in zip(digits.images, digits.target, strict=True):
            yield str(label), Image.fromarray((pixels * 255 / 16).round().astype("uint8")).convert("RGB")
        return
    for path in sorted(emoji.glob("*/*/*")):
        if path.is_file():
            with Image.open(path) as image:
                rgba = image.convert("RGBA")
            yield path.parent.name, Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def features_of(folder: Path, weights: Path, cache: Path) -> dict[str, tuple[NDArray[np.float32], int]]:
    """By path in the folder the pooled features and the label of every image."""
    index = load_index(DataSpec(source="folder", path=str(folder), image_size=IMAGE_SIZE))
    source = resolve_weights("mobilenet_v2", WeightsSource(kind="file", path=str(weights)))
    transform = with_image_size(source.transform, IMAGE_SIZE)
    model = build_model(
        "mobilenet_v2", num_classes=len(index.classes), weights=source, image_size=IMAGE_SIZE, seed=0
    ).eval()
    *front, _ = model.head.children()
    found = {}
    for name, split in index.splits.items():
        pixels = open_pixels(index, name, transform, CacheSpec(directory=str(cache)), margin=False)
        for start in range(0, len(split.keys), 128):
            with torch.inference_mode():
                rows = model.forward_prefix(normalise(pixels.images[start : start + 128], transform), 0)
                for module in front:
                    rows = module(rows)
            for place, row in enumerate(rows.numpy(), start):
                found["/".join(Path(split.keys[place]).parts[-2:])] = (row, split.labels[place])
    return found


def draw(folder: Path, per_class: int, seed: int, target: Path) -> tuple[list[str], list[str]]:
    """train/ with ``per_class`` images of each class and test/ with all others; their paths below the class folders."""
    rng = np.random.default_rng(seed)
    drawn: tuple[list[str], list[str]] = ([], [])
    for label in sorted(path for path in folder.iterdir()):
        files = sorted(label.iterdir())
        chosen = {files[place] for place in rng.permutation(len(files))[:per_class]}
        for file in files:
            split = "train" if file in chosen else "test"
            (target / split / label.name).mkdir(parents=True, exist_ok=True)
            os.link(file, target / split / label.name / file.name)
            drawn[split == "test"].append(f"{label.name}/{file.name}")
    return drawn


def rival(features: Mapping[str, tuple[NDArray[np.float32], int]], drawn: tuple[list[str], list[str]]) -> float:
    """Accuracy of the cross-validated logistic regression on the images that were not drawn."""
    (rows, labels), (rest, truth) = (
        (np.stack([features[one][0] for one in paths]), np.array([features[one][1] for one in paths]))
        for paths in drawn
    )
    # Rotated into the span of the drawn images: the same classifier, since the penalty keeps its weights there.
    mean = rows.mean(0)
    span = np.linalg.svd(rows - mean, full_matrices=False)[2].T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        fitted = LogisticRegressionCV(Cs=PENALTIES, cv=5, max_iter=300).fit((rows - mean) @ span, labels)
    return float(fitted.score((rest - mean) @ span, truth))


def tlsearch(*arguments: str, cwd: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """What a command says with --json."""
    command = [sys.executable, "-m", "tlsearch", *arguments, "--json"]
    done = subprocess.run(command, cwd=cwd, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"tlsearch {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return dict(json.loads(done.stdout[done.stdout.index("{") :]))


def ours(options: argparse.Namespace, root: Path, seed: int) -> dict[str, Any]:
    """A search with defaults, its promoted model, and its best trial by validation alone."""
    environment = {
        **os.environ,
        "TLSEARCH_STATE_DIR": str(root / "state"),
        "TLSEARCH_CACHE_DIR": str(root / "cache"),
    }
    text = SPACE.format(size=IMAGE_SIZE, weights=json.dumps(str(options.weights)), trials=options.trials, seed=seed)
    (root / "space.yaml").write_text(text, encoding="utf-8")
    start = time.monotonic()
    found = tlsearch("run", "space.yaml", "--name", "small", cwd=root, environment=environment)
    seconds = time.monotonic() - start
    promoted = tlsearch("promote", "small", cwd=root, environment=environment)
    best = promoted
    if found["best"] is not None:
        arguments = ("promote", "small", "--trial", str(found["best"]), "--reuse-test", "--alias", "best")
        best = tlsearch(*arguments, cwd=root, environment=environment)
    return {
        "accuracy": promoted["test"]["accuracy"],
        "reason": promoted["reason"],
        "best_trial_accuracy": best["test"]["accuracy"],
        "best_value": max(trial["best_value"] or 0.0 for trial in found["trials"]),
        "search_s": round(seconds, 1),
    }


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One set over all seeds."""
    source, per_class = SETS[name]
    rows = []
    with tempfile.TemporaryDirectory(prefix="small-data-") as folder:
        images = write_all(source, options.emoji, Path(folder) / "all")
        features = features_of(images, options.weights, Path(folder) / "cache")
        for seed in range(options.seeds):
            root = Path(folder) / str(seed)
            drawn = draw(images, per_class, seed, root / "images")
            row = {"seed": seed, "rival": rival(features, drawn), **ours(options, root, seed)}
            rows.append(row)
            print(json.dumps({"set": name, **row}), flush=True)
    return {"set": name, "rows": rows, **summary(rows)}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the difference to the rival with its standard error, seed by seed."""
    differences = np.array([row["accuracy"] - row["rival"] for row in rows])
    error = float(differences.std(ddof=1) / np.sqrt(len(rows))) if len(rows) > 1 else float("nan")
    return {
        "ours": float(np.mean([row["accuracy"] for row in rows])),
        "best_trial": float(np.mean([row["best_trial_accuracy"] for row in rows])),
        "rival": float(np.mean([row["rival"] for row in rows])),
        "difference": float(differences.mean()),
        "standard_error": error,
        "holds": bool(differences.mean() >= -error),
    }


def main() -> None:
    """Prints a line for each seed, then a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a state dict of torchvision's mobilenet_v2")
    parser.add_argument("--emoji", type=Path, required=True, help="a folder with train/, val/ and test/")
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=sorted(SETS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    options.weights, options.emoji = options.weights.resolve(), options.emoji.resolve()
    found = [measure(name, options) for name in options.sets]
    print(f"{'set':<10} {'ours':>7} {'best trial':>10} {'logistic':>9} {'difference':>10} {'± error':>8}")
    for one in found:
        print(
            f"{one['set']:<10} {one['ours']:>7.4f} {one['best_trial']:>10.4f} {one['rival']:>9.4f} "
            f"{one['difference']:>+10.4f} {one['standard_error']:>8.4f}  {'holds' if one['holds'] else 'BELOW'}"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
