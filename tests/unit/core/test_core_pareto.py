"""Fronts of two objectives, against their definition."""

from __future__ import annotations

import random

import pytest

from tlsearch.core.metrics import COSTS, Objective
from tlsearch.core.pareto import Point, front_ranks, pareto_order


def dominates(one: Point, other: Point) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one != other


def peeled(points: list[Point]) -> list[int]:
    """The ranks by definition: front after front is taken away."""
    ranks, left = [0] * len(points), set(range(len(points)))
    for rank in range(len(points)):
        front = {one for one in left if not any(dominates(points[other], points[one]) for other in left)}
        for one in front:
            ranks[one] = rank
        left -= front
    return ranks


@pytest.mark.parametrize("seed", range(40))
def test_fronts_are_as_their_definition_says(seed: int) -> None:
    rng = random.Random(seed)
    points = [(float(rng.randrange(6)), float(rng.randrange(5))) for _ in range(rng.randrange(30))]  # many are equal
    ranks = front_ranks(points)
    assert ranks == peeled(points)
    order = pareto_order(points)
    assert sorted(order) == list(range(len(points)))
    assert [ranks[place] for place in order] == sorted(ranks)


def test_a_front_begins_with_its_ends_then_comes_what_is_far_from_others() -> None:
    front = [(0.5, 5.0), (0.9, 0.0), (0.1, 10.0), (0.6, 4.0), (0.11, 9.9)]
    assert pareto_order(front) == [1, 2, 0, 3, 4]


def test_equal_points_end_their_front_and_keep_their_order() -> None:
    points = [(0.1, 1.0), (0.5, 0.0), (0.5, 0.0), (0.1, 1.0), (0.0, 0.0)]
    assert pareto_order(points) == [0, 1, 2, 3, 4]
    assert front_ranks(points) == [0, 0, 0, 0, 1]


def test_the_order_of_few_points() -> None:
    assert pareto_order([]) == []
    assert pareto_order([(0.3, -1.0)]) == [0]


@pytest.mark.parametrize(("metric", "expected"), [("val_accuracy", [0, 2, 4]), ("val_loss", [0, 3])])
def test_the_front_of_a_metric_and_a_cost(metric: str, expected: list[int]) -> None:
    costs = [1.0, 1.0, 2.0, 2.5, 3.0, 3.5, None, 0.1]
    values = [0.5, 0.4, 0.6, 0.1, 0.9, 0.9, 1.0, None]
    if metric == "val_loss":
        values[0], values[1], values[6] = 0.4, 0.5, 0.0
    found = Objective.of(metric).front(range(8), values.__getitem__, costs.__getitem__)
    assert found == expected


def test_less_of_every_cost_is_better() -> None:
    assert {Objective.of(name).mode for name in COSTS} == {"min"}
