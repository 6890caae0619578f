"""``search.objectives``: a metric, then a cost of the model; the metric follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from space_files import load_space_file

from tlsearch.config import SpaceFile, dump_resolved, parse_space_file
from tlsearch.core.errors import SpaceError

DIGITS = {"source": "digits"}


def write(folder: Path, search: dict[str, Any], *, data: dict[str, Any] | None = None) -> Path:
    (folder / "images.csv").write_text("path,label\n")
    tree = {"name": "a", "data": data or DIGITS, "space": {"backbone": "resnet18"}, "search": search}
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def loaded(folder: Path, search: dict[str, Any], **more: Any) -> SpaceFile:
    return load_space_file(write(folder, search, **more))


def test_the_metric_is_the_first_objective(tmp_path: Path) -> None:
    file = loaded(tmp_path, {"objectives": ["val_loss", "latency_ms"]})
    assert (file.search.metric, file.search.cost, file.search.measured) == ("val_loss", "latency_ms", ("latency_ms",))
    assert file.trial_setup().metric == "val_loss"
    both = {
        "objectives": ["val_loss", "params_millions"],
        "metric": "val_loss",
        "constraints": {"latency_ms": {"max": 9}},
    }
    assert loaded(tmp_path, both).search.measured == ("latency_ms", "params_millions")


@pytest.mark.parametrize("objectives", [None, []])
def test_without_objectives_the_metric_decides_alone(tmp_path: Path, objectives: Any) -> None:
    file = loaded(tmp_path, {"objectives": objectives})
    assert (file.search.metric, file.search.cost, file.search.measured) == ("val_accuracy", "", ())


def test_a_resolved_file_is_read_again(tmp_path: Path) -> None:
    for search in ({"objectives": ["val_macro_f1", "checkpoint_mb"]}, {}):
        file = loaded(tmp_path, search)
        (tmp_path / "resolved.yaml").write_text(dump_resolved(file))
        again, problems = parse_space_file(tmp_path / "resolved.yaml", stored=True)
        assert again is not None and not problems and again.search == file.search


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (["val_accuracy", "latency"], "'latency' is neither; did you mean 'latency_ms'?"),
        (["val_acuracy", "latency_ms"], "did you mean 'val_accuracy'"),
        (["val_accuracy", "val_accuracy"], "'val_accuracy' is there twice"),
        (["val_accuracy", "val_loss"], "one of params_millions, checkpoint_mb, latency_ms"),
        (["latency_ms", "val_accuracy"], "objectives are a metric, then a cost of the model"),
        (["val_accuracy"], "objectives are a metric, then a cost of the model"),
        (["val_accuracy", "latency_ms", "params_millions"], "objectives are a metric, then a cost of the model"),
        ("val_accuracy", "as in [val_accuracy, latency_ms]; not 'val_accuracy'"),
        ([1, 2], "objectives are a metric, then a cost of the model"),
    ],
)
def test_what_objectives_are_not(tmp_path: Path, objectives: Any, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, {"objectives": objectives})
    (fault,) = map(str, caught.value.faults)
    assert message in fault and "search.objectives" in fault


def test_another_metric_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, {"objectives": ["val_accuracy", "latency_ms"], "metric": "val_loss"})
    (fault,) = map(str, caught.value.faults)
    assert "metric is the first of the objectives (line" in fault and "val_accuracy; leave it out" in fault


def test_a_metric_of_another_task(tmp_path: Path) -> None:
    several = {"source": "manifest", "path": "images.csv", "task": "multi_label"}
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, {"objectives": ["val_accuracy", "latency_ms"]}, data=several)
    (fault,) = map(str, caught.value.faults)
    assert "has the metrics val_map" in fault and "search.objectives" in fault
    assert loaded(tmp_path, {"objectives": ["val_map", "latency_ms"]}, data=several).search.metric == "val_map"
