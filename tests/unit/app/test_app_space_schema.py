"""The JSON schema of a space file agrees with what ``check`` says about keys, types and bounds of single values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from space_mutations import mutate

from tlsearch.app.views.space_schema import schema_text, space_schema
from tlsearch.config import as_tree
from tlsearch.config.document.loader import read_document
from tlsearch.core.errors import SpaceError
from tlsearch.space import load
from tlsearch.space.dimensions import PARAMETERS

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.yaml"))
# What only the values together, or the disk, can say.
_BETWEEN_VALUES = ("no trial of this space", "weights file", "does not exist", "has no effect")


@lru_cache(maxsize=1)
def _validator() -> Draft202012Validator:
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _files_in(page: str) -> Iterator[Any]:
    """The whole space files among a page's examples."""
    for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        tree = yaml.safe_load(text)
        if isinstance(tree, dict) and {"name", "data", "space"} <= tree.keys():
            yield tree


def test_every_shipped_file_and_example_is_accepted() -> None:
    trees = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in SHIPPED]
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "cluster").glob("**/*.md")):
        trees += _files_in(page.read_text(encoding="utf-8"))
    assert len(trees) > len(SHIPPED)
    assert [error.message for tree in trees for error in _validator().iter_errors(tree)] == []


def test_the_resolved_file_of_a_search_is_accepted() -> None:
    file, _ = load(ROOT / "search_spaces" / "quickstart.yaml")
    assert [error.message for error in _validator().iter_errors(as_tree(file))] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_it_accepts_what_check_accepts_and_refuses_wrong_keys_and_types(path: Path, tmp_path: Path) -> None:
    text, copied = path.read_text(encoding="utf-8"), tmp_path / "space.yaml"
    compared = 0
    for seed in range(60):
        mutant = mutate(text, seed)
        copied.write_text(mutant.text, encoding="utf-8")
        document, _ = read_document(copied)
        if document is None or mutant.kind not in ("harmless", "type", "key"):
            continue
        try:
            load(copied)
            problems: tuple[Any, ...] = ()
        except SpaceError as error:
            problems = error.faults
        single = [one for one in problems if not any(words in one.message for words in _BETWEEN_VALUES)]
        if any("nan" in one.message for one in single):  # JSON has no such number
            continue
        assert _validator().is_valid(document.tree) == (not single), (mutant.what, single)
        compared += 1
    assert compared > 30


@pytest.mark.parametrize(
    "change",
    [
        {"space": {"backbone": "resnet18", "head_lr": {"int": [1, 2]}}},
        {"space": {"backbone": "resnet18", "head_lr": {"log": [1e-3]}}},
        {"space": {"backbone": "resnet18", "bn_policy": "frosen"}},
        {"space": {"backbone": "resnet81"}},
        {"space": {"unfreeze_depth": 2}},
        {"space": {"backbone": "resnet18", "unfreeze_depth": 6}},
        {"space": {"backbone": "resnet18", "backbone_lr": {"ratio_of": "weight_decay", "log": [0.1, 1]}}},
        {"space": {"backbone": "resnet18", "backbone_lr": {"when": {"unfreeze_depth": {"gt": 2}}, "log": [0.1, 1]}}},
        {"search": {"scheduler": {"hyperband": {}}}},
        {"search": {"metric": "accuracy"}},
        {"search": {"start_with": [{"backbon": "resnet18"}]}},
        {"resources": {"gpus_per_trial": "all"}},
    ],
    ids=str,
)
def test_what_an_editor_marks(change: dict[str, Any]) -> None:
    good = {"name": "x", "data": {"source": "digits"}, "space": {"backbone": "resnet18"}}
    assert _validator().is_valid(good)
    assert not _validator().is_valid({**good, **change})


def test_what_an_editor_shows() -> None:
    schema = space_schema()
    assert schema["properties"]["space"]["properties"]["head_lr"]["description"] == PARAMETERS["head_lr"].meaning
    assert schema["$defs"]["SearchSpec"]["properties"]["trials"]["description"].startswith("Total number of trials")
    assert all(one.get("description") for one in schema["properties"].values())
    assert "resnet18" in schema["$defs"]["Backbone"]["anyOf"][0]["enum"]
    assert len(schema_text()) < 200_000
