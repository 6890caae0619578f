"""What a validation split can tell apart, in words and as JSON."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlsearch.app.checks.resolution import DISAGREEMENT, convincing_difference, folds_advice, resolution, resolution_of


class _Split(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.labels)


def index_of(classes: list[str], val: list[int], train: tuple[int, ...] = ()) -> Any:
    """A data set of which only labels are asked for."""
    splits = {"train": _Split(labels=train), "val": _Split(labels=tuple(val))}
    return SimpleNamespace(classes=tuple(classes), splits=splits, task="single_label")


@pytest.mark.parametrize(("images", "chance"), [(24, "0.10"), (348, "0.03"), (100, "0.05"), (1, "0.50"), (6, "0.20")])
def test_it_says_which_differences_are_chance(images: int, chance: str) -> None:
    found = resolution(index_of(["a"], [0] * images))
    assert f"under {chance} are chance" in found.lines()[0]
    assert found.lines()[0].startswith(f"{images} validation image{'s' if images > 1 else ''}:")
    assert ("larger validation split" in found.lines()[0]) == (images < 100)


def test_the_figure_is_the_standard_error_of_a_paired_difference() -> None:
    rng = np.random.default_rng(0)
    outcomes = rng.choice([1.0, -1.0, 0.0], size=(20_000, 24), p=[DISAGREEMENT / 2, DISAGREEMENT / 2, 1 - DISAGREEMENT])
    assert resolution(index_of(["a"], [0] * 24)).chance == pytest.approx(outcomes.mean(1).std(), rel=0.02)


def test_classes_with_hardly_any_validation_image_are_named() -> None:
    found = resolution(index_of(["many", "two", "none", "one"], [0] * 9 + [1, 1, 3]))
    few = {"none": 0, "one": 1, "two": 2}
    assert found.as_json() == {"images": 12, "chance": 0.1443, "few": few, "folds": 0, "advice": ""}
    assert "none (0), one (1), two (2)" in found.lines()[1]
    assert "new\\nline (1), other (1)" in resolution(index_of(["new\nline", "other"], [0, 1])).lines()[1]
    crowd = resolution(index_of([f"c{n}" for n in range(9)], list(range(9))))
    assert "c4 (1) and 4 more" in crowd.lines()[1]
    assert len(resolution(index_of(["a"], [0] * 20)).lines()) == 1


def test_folds_are_advised_below_twenty_validation_images_a_class() -> None:
    few = index_of(["a", "b"], [0, 0, 1], train=(0,) * 8 + (1,) * 3)
    assert resolution(few).lines()[-1].startswith("1.5 validation images a class, on average, choose mostly the luck")
    one = index_of(["a", "b"], [0, 1], train=(0, 0, 1, 1))
    assert folds_advice(one).startswith("1 validation image a class, on average, chooses mostly")
    assert "search.folds: 4 " in folds_advice(few), "the smallest class has 4 images"
    found = resolution(few, 4)
    assert (found.num_images, found.folds, found.advice) == (14, 4, "")
    assert found.lines()[0].startswith("14 validation images in 4 folds: ")
    assert folds_advice(index_of(["a"], [0] * 20, train=(0,) * 30)) == ""
    assert folds_advice(index_of(["a", "b"], [0, 0])) == "", "a class with a single image cannot be cut"


@pytest.mark.parametrize("images", [24, 100, 348])
def test_a_difference_that_convinces_is_worth_its_gain_in_expectation(images: int) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 0.03, size=2_000_000)
    observed = true + rng.normal(0, resolution_of(images), size=true.size)
    near = np.abs(observed - convincing_difference(images)) < 0.005
    assert true[near].mean() == pytest.approx(0.015, abs=0.001)


def test_more_images_convince_by_less() -> None:
    lines = [convincing_difference(images) for images in (24, 100, 348, 100_000)]
    assert [round(line, 2) for line in lines] == [0.19, 0.06, 0.03, 0.02]
