"""The section ``data``: what each source may be given, made absolute, and written back as it was read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from space_files import load_space_file

from tlsearch.config import dump_resolved
from tlsearch.core.errors import SpaceError
from tlsearch.core.types import DataSpec

SOURCES: dict[str, tuple[dict[str, Any], DataSpec]] = {
    "manifest": (
        {"source": "manifest", "path": "images.csv"},
        DataSpec(source="manifest", path="{here}/images.csv"),
    ),
    "folder": (
        {"source": "folder", "path": ".", "layout": "classes", "max_pixels": 200_000_000},
        DataSpec(source="folder", path="{here}", layout="classes", max_pixels=200_000_000),
    ),
    "torchvision": (
        {"source": "torchvision", "name": "DTD", "path": "sets", "download": True, "options": {"partition": 2}},
        DataSpec(source="torchvision", name="DTD", path="{here}/sets", download=True, options={"partition": 2}),
    ),
    "torchvision in the cache": (
        {"source": "torchvision", "name": "CIFAR10"},
        DataSpec(source="torchvision", name="CIFAR10"),
    ),
    "huggingface on the Hub": (
        {"source": "huggingface", "name": "a/b", "options": {"name": "small"}, "label_column": "kind"},
        DataSpec(source="huggingface", name="a/b", options={"name": "small"}, label_column="kind"),
    ),
    "five channels": (
        {"source": "digits", "channels": 5, "bits": 16, "mean": [0.5, 0.25, 0.0, 1.0, 0.1], "std": [0.1] * 5},
        DataSpec(source="digits", channels=5, bits=16, mean=(0.5, 0.25, 0.0, 1.0, 0.1), std=(0.1,) * 5),
    ),
    "huggingface on disk": (
        {"source": "huggingface", "path": ".", "image_column": "img"},
        DataSpec(source="huggingface", path="{here}", image_column="img"),
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_is_read_and_written_back(tmp_path: Path, name: str) -> None:
    written, want = SOURCES[name]
    (tmp_path / "images.csv").write_text("path,label\n")
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "data": written, "space": {"backbone": "resnet18"}}))
    file = load_space_file(path)
    absolute = want.path and want.path.format(here=tmp_path)
    assert file.data == DataSpec(**{**vars(want), "path": absolute})
    hash(file.data)  # trials keep what they listed by it
    (tmp_path / "elsewhere").mkdir()
    resolved = tmp_path / "elsewhere" / "resolved.yaml"
    resolved.write_text(dump_resolved(file))
    assert load_space_file(resolved) == file


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_pixels", 0, "data.max_pixels"),
        ("max_pixels", "many", "data.max_pixels"),
        ("max_pixels", 0.5, "data.max_pixels"),
        ("layout", "splits", "data.layout"),
        ("channels", 0, "data.channels"),
        ("channels", "rgb", "data.channels"),
        ("bits", 12, "data.bits: must be 8 or 16, not 12"),
        ("mean", [0.5], "mean and std belong together, each with a number for every channel"),
        ("std", [0.5, 0.0], "data.std"),
        ("mean", [1.5], "data.mean"),
        ("mean", 0.5, "data.mean"),
    ],
)
def test_problems_of_values(tmp_path: Path, key: str, value: Any, message: str) -> None:
    data = {"source": "folder", "path": ".", key: value}
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "data": data, "space": {"backbone": "resnet18"}}))
    with pytest.raises(SpaceError, match=message):
        load_space_file(path)


def test_only_folders_have_a_layout(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("name: a\ndata: {source: digits, layout: classes}\nspace: {backbone: resnet18}\n")
    with pytest.raises(SpaceError, match="source digits has no layout"):
        load_space_file(path)
