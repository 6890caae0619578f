"""Images with any number of classes each: tints of red, green and blue, drawn independently, in a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

TINTS = ("blue", "green", "red")
COUNTS = {"train": 24, "val": 16, "test": 16}

SPACE = """
name: tints
data: {{source: manifest, path: ./images/table.csv, image_size: 32, task: multi_label}}
weights: {{mobilenet_v3_small: none, resnet18: none}}
space:
  backbone: [mobilenet_v3_small, resnet18]
  unfreeze_depth: 0
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  head: [linear, ridge, logistic]
  head_penalty: {{log: [1.0e-3, 10]}}
search:
  trials: 3
  max_epochs: 2
  scheduler: none
  sampler: fixed
  start_with:
    - {{backbone: mobilenet_v3_small, head_lr: 3.0e-2}}
    - {{backbone: resnet18, head: ridge, head_penalty: 0.1}}
    - {{backbone: resnet18, head_lr: 3.0e-3}}
{more}
"""


def write_tints(root: Path, *, counts: dict[str, int] | None = None, splits: bool = True) -> Path:
    """Writes images and ``table.csv`` below a folder; about one image in eight has no class, a cell that is empty."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    lines = ["path,label,split" if splits else "path,label"]
    for split, count in (counts or COUNTS).items():
        for number in range(count):
            tints = [name for place, name in enumerate(TINTS) if (number >> place) & 1]  # all eight sets, in turn
            pixels = rng.integers(0, 130, (36, 40, 3), dtype=np.uint8)
            for name in tints:
                pixels[..., 2 - TINTS.index(name)] += np.uint8(rng.integers(50, 120))
            Image.fromarray(pixels).save(root / f"{split}-{number:02d}.png")
            lines.append(f"{split}-{number:02d}.png,{'|'.join(tints)}" + (f",{split}" if splits else ""))
    table = root / "table.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table
