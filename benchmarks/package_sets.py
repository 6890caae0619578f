#!/usr/bin/env python3
"""Real data sets of drawings from Debian packages and of digits from scikit-learn, as folders with train/, val/, test/.

    apt-get download gnome-icon-theme mate-icon-theme oxygen-icon-theme faenza-icon-theme elementary-xfce-icon-theme \
        openclipart-png
    for package in *.deb; do dpkg -x "$package" PACKAGES; done
    package_sets.py --packages PACKAGES --out SETS [--sets icons clipart digits-10 digits-50] [--seed 0]

- ``icons``: pictograms by the context of the freedesktop icon naming specification (actions, apps, places, ...).
  Trained and validated on the themes GNOME, MATE and Oxygen, tested on Faenza and elementary: other artists.
- ``clipart``: drawings of the Open Clip Art Library by subject (animals, buildings, food, ...).
- ``digits-N``: scikit-learn's handwritten digits, N images a class for training, as many for validation, the rest for
  the test.

All images are opaque PNGs of at most 128 px; of equal contents one is kept. An icon is taken in its size nearest to
48 px.
"""

from __future__ import annotations

import argparse
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

SETS = ("icons", "clipart", "digits-10", "digits-50")
CONTEXTS = ("actions", "apps", "devices", "mimetypes", "places", "status")
OTHER_NAMES = {"mimes": "mimetypes"}  # elementary's
TRAIN_THEMES, TEST_THEMES = ("gnome", "mate", "oxygen"), ("Faenza", "elementary-xfce")
ICON_PX = "48"
ICONS = {"train": 60, "val": 30, "test": 60}  # at most, of a class
SUBJECTS = ("animals", "buildings", "food", "office", "people", "plants", "recreation", "tools", "transportation")
CLIPART = {"train": 60, "val": 30, "test": 60}
MAX_PX = 128
MAX_PIXELS = 10_000_000  # of a file: some drawings take seconds to read

Images = dict[str, list[Image.Image]]  # by class


def icons(packages: Path, themes: Sequence[str], known: set[str]) -> Images:
    """The icons of themes by context; links to others are not counted."""
    found: Images = defaultdict(list)
    for theme in themes:
        for path in sorted((packages / "usr/share/icons" / theme).rglob("*.png")):
            parts = path.relative_to(packages / "usr/share/icons" / theme).parts
            context = next((OTHER_NAMES.get(one, one) for one in parts if OTHER_NAMES.get(one, one) in CONTEXTS), None)
            if context is not None and {ICON_PX, f"{ICON_PX}x{ICON_PX}"} & set(parts) and not path.is_symlink():
                found[context] += _unknown([path], known)
    return found


def clipart(packages: Path, rng: np.random.Generator) -> Images:
    """As many drawings of each subject, drawn at random, as the splits take."""
    root, known = packages / "usr/share/openclipart/png", set[str]()
    wanted, found = sum(CLIPART.values()), {}
    for subject in SUBJECTS:
        paths = sorted((root / subject).rglob("*.png"))
        found[subject] = list(islice(_unknown([paths[place] for place in rng.permutation(len(paths))], known), wanted))
    return found


def digits() -> Images:
    """Handwritten digits of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    loaded, found = load_digits(), defaultdict(list)
    for pixels, label in zip(loaded.images, loaded.target, strict=True):
        found[str(label)].append(Image.fromarray((pixels * 255 / 16).round().astype("uint8")).convert("RGB"))
    return found


def _unknown(paths: Iterable[Path], known: set[str]) -> Iterator[Image.Image]:
    for path in paths:
        if path.is_symlink():
            continue
        try:
            with Image.open(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    continue
                rgba = opened.convert("RGBA")
        except (OSError, Image.DecompressionBombError):
            continue  # a few files of the packages are damaged, or larger than PIL reads
        rgba.thumbnail((MAX_PX, MAX_PX))
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        if digest not in known:
            known.add(digest)
            yield image


def write(target: Path, images: Images, counts: Mapping[str, int], rng: np.random.Generator) -> None:
    """Draws this number of images of each class into each split, in proportion where there are fewer; -1: the rest."""
    wanted = sum(count for count in counts.values() if count > 0)
    for label, all_of_class in sorted(images.items()):
        order, start = rng.permutation(len(all_of_class)), 0
        for split, count in counts.items():
            share = count if len(order) >= wanted else count * len(order) // wanted
            chosen = order[start:] if count < 0 else order[start : start + share]
            start += len(chosen)
            (target / split / label).mkdir(parents=True, exist_ok=True)
            for place in chosen:
                all_of_class[place].save(target / split / label / f"{place:05d}.png")


def make(name: str, packages: Path, target: Path, seed: int) -> None:
    """Writes one set."""
    rng = np.random.default_rng(seed)
    if name == "icons":
        known = set[str]()
        write(target, icons(packages, TRAIN_THEMES, known), {"train": ICONS["train"], "val": ICONS["val"]}, rng)
        write(target, icons(packages, TEST_THEMES, known), {"test": ICONS["test"]}, rng)
    elif name == "clipart":
        write(target, clipart(packages, rng), CLIPART, rng)
    else:
        per_class = int(name.partition("-")[2])
        write(target, digits(), {"train": per_class, "val": per_class, "test": -1}, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder that holds the packages' usr/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the largest are left out
    for name in arguments.sets:
        make(name, arguments.packages, arguments.out / name, arguments.seed)
        counts = {split.name: len(list(split.rglob("*.png"))) for split in sorted((arguments.out / name).iterdir())}
        print(f"{name}: {counts}")


if __name__ == "__main__":
    main()
