#!/usr/bin/env python3
"""What random points in free slots are worth while first looks run, by slots, on replayed curves.

    free_slots.py [CURVES.json ...] [--slots 1 2 8 32] [--seeds 20] [--trials 64] [--least-depth 0]

Searches of --trials trials on the virtual clock of search_quality.py, with slots that are filled and with slots that
wait for the first looks. --least-depth 2 leaves the shallow depths out of the space, so that a first look trains stages
and takes as long as other trials. Idle are slot seconds without a trial, until the last first look ends and in all. The
area is the mean of the best so far over the time that the waiting search of the same seed took; area and end are points
more than the waiting search has, paired by seed, with a bootstrap interval of 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

from search_quality import HERE, Problem, plan_of, problems
from search_tables import paired
from simulated import Node, Replayed, Trace, traced

from tlsearch.forecast.simulation import ControllerSearcher, Simulated, simulate
from tlsearch.search.controller.trial_queue import Intake
from tlsearch.space import Space

_FIGURES = ("looks_s", "idle_looks_s", "idle_s", "end_s", "num_free")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One search.

    Attributes:
        looks_s: When the last first look ended.
        idle_looks_s: Slot seconds without a trial until then.
        idle_s: Those of the whole search.
        num_free: Trials that free slots began.
        points: Of all trials, in order.
    """

    trace: Trace
    end_s: float
    looks_s: float
    idle_looks_s: float
    idle_s: float
    num_free: int
    points: tuple[str, ...]


@contextmanager
def waiting_slots() -> Iterator[None]:
    """Has slots wait for the first looks."""
    with patch.object(Intake, "free_point_left", False):
        yield


def from_depth(problem: Problem, least: int) -> Problem:
    """The problem without shallower depths."""
    tree = json.loads(problem.space.to_json())
    for dimension in tree["dimensions"]:
        if dimension["name"] == "unfreeze_depth" and least:
            dimension["domain"] = {"int": [least, 5], "step": 1}
    return replace(problem, space=Space.from_json(json.dumps(tree)))


def searched(problem: Problem, seed: int, *, slots: int, trials: int) -> Run:
    """One search to its last trial."""
    searcher, node = ControllerSearcher(plan_of(problem, seed, trials=trials)), Node(problem.source)
    done = simulate(searcher, lambda start: Replayed(*node.open(start)), slots=slots)
    stored = searcher.study.trials()
    looks_s = max((done.trials[one.number].ended_s for one in stored if one.user_attrs.get("first_look")), default=0.0)
    return Run(
        trace=traced(done, metric=problem.metric, sign=1.0),
        end_s=done.end_s,
        looks_s=looks_s,
        idle_looks_s=idle(done, slots, looks_s),
        idle_s=idle(done, slots, done.end_s),
        num_free=sum(one.user_attrs.get("origin") == "free_slot" for one in stored),
        points=tuple(str(sorted(one.params.items())) for one in stored),
    )


def idle(done: Simulated, slots: int, until_s: float) -> float:
    """Slot seconds without a trial."""
    return slots * until_s - sum(max(0.0, min(one.ended_s, until_s) - one.began_s) for one in done.trials.values())


def row_of(name: str, runs: Sequence[Run], waiting: Sequence[Run], problem: Problem) -> str:
    """A line of the table."""
    pairs = list(zip(runs, waiting, strict=True))
    columns = (
        [
            (one.trace.area(other.end_s, problem.chance), other.trace.area(other.end_s, problem.chance))
            for one, other in pairs
        ],
        [(one.trace.at(math.inf, problem.chance), other.trace.at(math.inf, problem.chance)) for one, other in pairs],
    )
    cells = [f"{statistics.mean(getattr(one, key) for one in runs):.1f}" for key in _FIGURES]
    for values in columns:
        mean, low, high = (100 * figure for figure in paired(*zip(*values, strict=True)))
        cells.append(f"{mean:+.2f} ({low:+.2f} to {high:+.2f})")
    same = sum(one.points == other.points for one, other in pairs)
    return f"| {name} | {' | '.join(cells)} | {same} of {len(pairs)} |"


def main() -> None:
    """Prints a row for each table, number of slots and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="*", default=[HERE / "curves" / "emoji.json"])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 8, 32])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--least-depth", type=int, default=0)
    arguments = parser.parse_args()
    print("| set, slots | looks, s | idle then | idle in all | whole, s | free | area | end | same trials |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for path, slots in product(arguments.curves, arguments.slots):
        problem = from_depth(next(problems(path, between=False, each_backbone=False)), arguments.least_depth)
        options = {"slots": slots, "trials": arguments.trials}
        with waiting_slots():
            waiting = [searched(problem, seed, **options) for seed in range(arguments.seeds)]
        filled = [searched(problem, seed, **options) for seed in range(arguments.seeds)]
        for way, runs in {"waiting": waiting, "filled": filled}.items():
            print(row_of(f"{problem.name}, {slots} {way}", runs, waiting, problem), flush=True)


if __name__ == "__main__":
    main()
