"""What is better where two objectives count: the front that no point beats, and the order in which points follow.

A point is a pair of gains, larger is better (``Objective.gain``). One point dominates another where it is at least as
good in both objectives and better in one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

Point = tuple[float, float]


def front_ranks(points: Sequence[Point]) -> list[int]:
    """The front that each point belongs to: 0 where no point dominates it, k where only points of fronts below k do.

    O(n log n), as Jensen's sort for two objectives (IEEE Transactions on Evolutionary Computation, 2003).
    """
    found: dict[Point, int] = {}
    ends: list[float] = []  # by front the negative of its largest first gain so far: it never falls from front to front
    for point in sorted(set(points), key=lambda one: (-one[1], -one[0])):
        rank = found[point] = bisect_right(ends, -point[0])
        ends[rank : rank + 1] = [-point[0]]
    return [found[point] for point in points]


def pareto_order(points: Sequence[Point]) -> list[int]:
    """The places of all points, best first: front by front, and in each front those that are spread most.

    In a front this is the order of NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation, 2002): its ends,
    then the points whose neighbours are farthest from each other. Of equal points only the first has neighbours, the
    others end their front. What is equal in all of this keeps its order.
    """
    ranks = front_ranks(points)
    fronts: dict[int, list[Point]] = {}
    for point, rank in sorted(set(zip(points, ranks, strict=True))):
        fronts.setdefault(rank, []).append(point)
    crowding = {point: distance for front in fronts.values() for point, distance in _crowding(front).items()}
    first: dict[Point, int] = {}
    for place, point in enumerate(points):
        first.setdefault(point, place)

    def key(place: int) -> tuple[int, bool, float, int]:
        point = points[place]
        return ranks[place], first[point] != place, -crowding[point], place

    return sorted(range(len(points)), key=key)


def _crowding(front: Sequence[Point]) -> dict[Point, float]:
    """Of each point how far apart its two neighbours are, as a fraction of the front's extent in each objective.

    Args:
        front: Points of which none dominates another, by the first gain; all different.
    """
    (low, high), (top, bottom) = ((front[0][axis], front[-1][axis]) for axis in (0, 1))
    inner = {
        point: (after[0] - before[0]) / (high - low) + (before[1] - after[1]) / (top - bottom)
        for before, point, after in zip(front, front[1:], front[2:], strict=False)
    }
    return {front[0]: math.inf, front[-1]: math.inf, **inner}
