"""``cache.views`` above 1: an error only where no trial of the space could read a fixed view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tlsearch.core.errors import SpaceError, SpaceProblem
from tlsearch.space import load

LIGHT = {"augmentation": ["none", "light"]}


def write(folder: Path, space: dict[str, Any], views: int = 4) -> Path:
    path = folder / "space.yaml"
    tree = {
        "name": "a",
        "data": {"source": "digits"},
        "space": {"backbone": ["resnet18", "mobilenet_v2"], **space},
        "cache": {"views": views},
    }
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def problems(folder: Path, space: dict[str, Any]) -> tuple[SpaceProblem, ...]:
    with pytest.raises(SpaceError) as caught:
        load(write(folder, space))
    return caught.value.faults


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "no trial has an augmentation, light or strong"),
        ({"augmentation": "none"}, "no trial has an augmentation, light or strong (line 8)"),
        ({**LIGHT, "mixup": [0.1, 0.2]}, "mixup mixes the images of every trial again"),
        ({**LIGHT, "cutmix": 1.0}, "cutmix mixes the images of every trial again"),
        ({**LIGHT, "unfreeze_depth": 5, "unfreeze_schedule": "at_once"}, "at unfreeze_depth 5 nothing stays frozen"),
        ({**LIGHT, "bn_policy": "stats"}, "bn_policy stats moves what could be stored"),
    ],
)
def test_views_that_no_trial_could_read_are_a_problem(tmp_path: Path, space: dict[str, Any], words: str) -> None:
    (problem,) = problems(tmp_path, space)
    assert problem.dotted == "cache.views" and problem.line > 0
    assert words in problem.message
    load(write(tmp_path, space, views=1))


@pytest.mark.parametrize(
    "space",
    [
        LIGHT,
        {"augmentation": "strong"},
        {"augmentation": {"when": {"unfreeze_depth": 2}, "choice": ["none", "light"]}, "unfreeze_depth": [0, 2]},
        {**LIGHT, "mixup": [0, 0.2], "cutmix": {"float": [0.0, 1.0]}},
        {**LIGHT, "mixup": {"when": {"optimizer": "sgd"}, "choice": [0.1, 0.2]}, "optimizer": ["adamw", "sgd"]},
        {**LIGHT, "unfreeze_depth": [4, 5]},
        {**LIGHT, "unfreeze_depth": 5, "unfreeze_schedule": ["at_once", "progressive"]},
        {**LIGHT, "bn_policy": ["stats", "frozen"]},
        {**LIGHT, "backbone": ["resnet18", "vit_b_16"], "bn_policy": "stats"},
    ],
)
def test_views_that_some_trial_may_read_are_none(tmp_path: Path, space: dict[str, Any]) -> None:
    file, _ = load(write(tmp_path, space))[:2]
    assert file.cache.views == 4


def test_what_is_wrong_itself_is_not_blamed_twice(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"augmentation": "lihgt"})
    assert problem.dotted == "space.augmentation"
