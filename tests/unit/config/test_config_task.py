"""``data.task``: the metric that follows from it, and what does not fit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from space_files import load_space_file

from tlsearch.core.errors import SpaceError
from tlsearch.space import load


def write(folder: Path, *, data: dict[str, Any] | None = None, **sections: Any) -> Path:
    (folder / "images.csv").write_text("path,label\n")
    tree = {
        "name": "a",
        "data": {"source": "manifest", "path": "images.csv", "task": "multi_label"} | (data or {}),
        "space": {"backbone": "resnet18"},
    }
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(tree | sections))
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        load(path)
    return [str(one) for one in caught.value.faults]


def test_a_search_has_the_metric_of_its_task_unless_it_names_one(tmp_path: Path) -> None:
    assert load_space_file(write(tmp_path)).search.metric == "val_map"
    assert load_space_file(write(tmp_path, data={"task": "single_label"})).search.metric == "val_accuracy"
    named = load_space_file(write(tmp_path, search={"metric": "val_micro_f1"}))
    assert named.search.metric == "val_micro_f1" and named.trial_setup().metric == "val_micro_f1"


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        ("multi_label", "val_accuracy", "the metrics val_map, val_loss, val_micro_f1, val_macro_f1, not val_accuracy"),
        ("single_label", "val_map", "data.task single_label (line 4) has the metrics val_accuracy, "),
    ],
)
def test_a_metric_of_another_task(tmp_path: Path, task: str, metric: str, message: str) -> None:
    (fault,) = faults(write(tmp_path, data={"task": task}, search={"metric": metric}))
    assert message in fault and "search.metric" in fault


def test_only_tables_have_a_task(tmp_path: Path) -> None:
    path = write(tmp_path, data={"source": "folder", "path": "."})
    assert any("source folder has no task" in one for one in faults(path))


def test_a_task_that_does_not_exist(tmp_path: Path) -> None:
    (fault,) = faults(write(tmp_path, data={"task": "multilabel"}))
    assert "data.task" in fault and "multi_label" in fault


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"head": ["linear", "cosine"], "unfreeze_depth": 0}, "head cosine does not fit data.task multi_label"),
        ({"class_balance": ["none", "sampler"]}, "class_balance sampler does not fit data.task multi_label"),
        (
            {"backbone": {"from": ["resnet18", "resnet34"], "screen": True}},
            "screen does not fit data.task multi_label (line 4): it ranks backbones",
        ),
    ],
)
def test_values_that_do_not_fit(tmp_path: Path, space: dict[str, Any], message: str) -> None:
    (fault,) = faults(write(tmp_path, space={"backbone": "resnet18"} | space))
    assert message in fault
    load(write(tmp_path, data={"task": "single_label"}, space={"backbone": "resnet18"} | space))
