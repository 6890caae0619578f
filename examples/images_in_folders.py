"""Searches for the best way to fine-tune EfficientNet-Lite0 on your own images, one folder for each class.

    pip install 'tlsearch[demo]'
    python images_in_folders.py IMAGES [TRIALS]

IMAGES holds one folder for each class, or train/ and val/ with such folders in each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tlsearch


def main(images: Path, trials: int) -> None:
    space = tlsearch.load_space(Path(__file__).with_name("images_in_folders.yaml"), data=images)
    search = tlsearch.run(space, trials=trials)
    if search.status == "interrupted":
        sys.exit(f"interrupted; go on with: tlsearch resume {search.id}")
    best = search.best
    if best is None:
        sys.exit("no trial has a result")
    print(f"best of {len(search.trials())} trials: {best.best_value:.4f} with {dict(best.params)}")

    some = sorted(images.rglob("*.png"))[:3] or sorted(images.rglob("*.jpg"))[:3]
    for prediction in search.model().predict(some):
        print(f"{prediction.path}: {prediction.label} ({prediction.score:.2f})")
    print(f"report: {search.report().page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8)
