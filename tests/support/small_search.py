"""A search that has ended, small enough for unit tests: real images, real trials, a real study, no Ray, no MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from preparing import prepare
from search_doubles import drive

from tlsearch.app.catalog.catalog import SearchEntry, find
from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import Prepared, RunOptions
from tlsearch.search import SearchPlan
from tlsearch.trial import open_running

CLASSES = ("circle", "square", "stripe")
COUNTS = {"train": 6, "val": 8, "test": 10}

SPACE = """
name: shapes
data: {{source: folder, path: ./images, image_size: 32}}
weights: {{mobilenet_v3_small: none, resnet18: none}}
space: {{backbone: [mobilenet_v3_small, resnet18], unfreeze_depth: 0, head_lr: {{log: [1.0e-4, 1.0e-1]}}}}
search:
  trials: 3
  max_epochs: 2
  scheduler: none
  sampler: fixed
  start_with:
    - {{backbone: mobilenet_v3_small, head_lr: 3.0e-2}}
    - {{backbone: mobilenet_v3_small, head_lr: 1.0e-3}}
    - {{backbone: resnet18, head_lr: 3.0e-2}}
{more}
"""


PICTURES = """
name: pictures
data: {source: folder, path: ./images, image_size: 32}
weights: {squeezenet1_1: none}
space: {backbone: squeezenet1_1, head_lr: {log: [1.0e-3, 1.0e-2]}}
search: {trials: 2, max_epochs: 2}
"""


def write_shapes(root: Path, *, counts: dict[str, int] | None = None) -> None:
    """Pictures of three classes that colour alone tells apart, mostly."""
    rng = np.random.default_rng(0)
    for split, count in (counts or COUNTS).items():
        for place, label in enumerate(CLASSES):
            folder = root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 160, (36, 40, 3), dtype=np.uint8)
                pixels[..., place] += np.uint8(rng.integers(30, 90))
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")


def small_search(
    root: Path, *, name: str = "small", counts: dict[str, int] | None = None, space: str = SPACE.format(more="")
) -> SearchEntry:
    """Three trials over two backbones, all kept; the second call in a folder adds a search of another name."""
    if not (root / "images").exists():
        write_shapes(root / "images", counts=counts)
    (root / "space.yaml").write_text(space)
    prepared = prepare(RunOptions(file=root / "space.yaml", name=name))
    assert drive(plan_of(prepared), factory=open_running) == "finished"
    return prepared.entry


def pictures_search(root: Path, **options: Any) -> SearchEntry:
    """A search ``one`` of two made-up trials over real images in ``root/images``, which it has cut itself."""
    write_shapes(root / "sets", counts={"all": 12})
    (root / "sets/all").rename(root / "images")
    (root / "space.yaml").write_text(PICTURES)
    prepared = prepare(RunOptions(file=root / "space.yaml", name="one", **options))
    assert drive(search_plan(prepared)) == "finished"
    return find("one")


def plan_of(prepared: Prepared) -> SearchPlan:
    """What the search's engine is given."""
    return SearchPlan(
        search_id=prepared.entry.search_id,
        experiment=prepared.entry.experiment,
        directory=prepared.entry.directory,
        space=prepared.space,
        setup=prepared.file.trial_setup(),
        search=prepared.file.search,
        resources=prepared.file.resources,
    )
