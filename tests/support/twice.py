"""A small real search that is run twice, and what must be equal then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preparing import prepare
from small_search import write_shapes

from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.core.types import SearchRecord, repeatable
from tlsearch.search import SearchPlan

SPACE = """
name: twice
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: none, squeezenet1_1: none}
space:
  backbone: [mobilenet_v3_small, squeezenet1_1]
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {log: [1.0e-5, 1.0e-2]}
  augmentation: [none, light]
search: {trials: 7, max_epochs: 3, scheduler: {asha: {reduction_factor: 2}}, metric: val_loss, seed: 11}
resources: {max_concurrent: 1}
"""


def prepared_plan(root: Path, name: str) -> SearchPlan:
    if not (root / "images").exists():
        write_shapes(root / "images")
        (root / "space.yaml").write_text(SPACE)
    return search_plan(prepare(RunOptions(file=root / "space.yaml", name=name)))


def told(record: SearchRecord) -> list[tuple[Any, ...]]:
    """All but names and times."""
    return [
        (
            t.number,
            t.state,
            t.reason,
            t.params,
            t.seed,
            [(r.epoch, {k: v for k, v in r.metrics.items() if repeatable(k)}) for r in t.reports],
            t.best_value,
            t.best_epoch,
        )
        for t in record.trials
    ]
