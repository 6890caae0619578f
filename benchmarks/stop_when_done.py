#!/usr/bin/env python3
"""What `search.stop: auto` saves and loses, and whether the chance that it states is what happens.

    stop_when_done.py CURVES.json ... [--trials 64] [--seeds 40] [--between] [--choose] [--json OUT]

The project's own search runs to its last trial over replayed curves (`search_quality.py`). Whenever a trial ends,
the rule says how likely the trials that have not begun gain 0.2 points; what they gained is known. A search would have
ended where the chance is below 10 % and still is once the running trials have ended. `--choose` picks the
rule's constants by the log loss on all sets but one, for each set, and prints what they do on the one left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_quality import HERE, Problem, plan_of, problems
from simulated import Node, Replayed

from tlsearch.core.types import EndReason, SearchObserver, TrialConfig, TrialOutcome
from tlsearch.forecast.simulation import ControllerSearcher, simulate
from tlsearch.search.scheduling.plateau import LEAST_CHANCE, MARGIN, RULE, EndedTrial, GainRule, outlook

BINS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
RULES = [
    GainRule(top=top, prior=prior, credit=credit)
    for top, prior, credit in itertools.product((3, 5, 8), (0.001, 0.003, 0.012), (0, 16, 32, 64))
]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A search when one of its trials has ended.

    Attributes:
        settled: The trials that have ended once those that run have, too: what the rule looks at last.
        before: The best value of all that have begun.
        gained: Whether a trial that began later is better by 0.2 points than the best that has ended.
    """

    ended: tuple[EndedTrial, ...]
    settled: tuple[EndedTrial, ...]
    left: int
    before: float
    gained: bool


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A whole search."""

    moments: tuple[Moment, ...]
    trials: int
    best: float


class Listener(SearchObserver):
    """Keeps how many trials had begun when each one ended."""

    def __init__(self) -> None:
        self._begun = 0
        self.ends: list[tuple[int, float | None, int]] = []  # number, value, begun

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """Counts."""
        self._begun = max(self._begun, number + 1)

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Keeps it."""
        value = None if outcome.reason is EndReason.DIVERGED else outcome.best_value
        self.ends.append((number, value, self._begun))


def searched(problem: Problem, seed: int, *, trials: int, slots: int) -> Searched:
    """Runs the search to its last trial."""
    heard = Listener()
    searcher = ControllerSearcher(plan_of(problem, seed, trials=trials), observers=(heard,))
    node = Node(problem.source)
    simulate(searcher, lambda start: Replayed(*node.open(start)), slots=slots)
    origins = [str(trial.user_attrs.get("origin", "")) for trial in searcher.study.trials()]
    return of_ends(heard.ends, origins, trials)


def of_ends(ends: Sequence[tuple[int, float | None, int]], origins: Sequence[str], trials: int) -> Searched:
    """A search from its trials' ends, in their order."""
    values = {number: value for number, value, _ in ends}
    seen = {number: EndedTrial(gain=value, origin=origins[number]) for number, value in values.items()}
    best = _best(values.values())
    moments = []
    for place, (_, _, begun) in enumerate(ends, start=1):
        running = set(range(begun)) - {number for number, _, _ in ends[:place]}
        if begun == trials or any(origins[number] != "sampler" for number in running):
            continue
        ended = [number for number, _, _ in ends[:place]]
        later = _best(values[number] for number in range(begun, trials))
        moments.append(
            Moment(
                ended=tuple(seen[number] for number in ended),
                settled=tuple(seen[number] for number in range(begun)),
                left=trials - begun,
                before=_best(values[number] for number in range(begun)),
                gained=later >= _best(values[number] for number in ended) + MARGIN,
            )
        )
    return Searched(moments=tuple(moments), trials=trials, best=best)


def _best(values: object) -> float:
    return max((value for value in values if value is not None), default=-math.inf)  # type: ignore[attr-defined]


def chance(ended: Sequence[EndedTrial], left: int, rule: GainRule) -> float:
    """As the search asks."""
    return outlook(ended, left=left, ceiling=1.0, rule=rule).chance


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the rule does on one table: shares of the trials, points of accuracy, fractions of the searches."""

    saved: float
    lost: float
    most_lost: float
    stopped: float
    gained: float
    log_loss: float


def row_of(searches: Sequence[Searched], rule: GainRule) -> Row:
    """Of one table."""
    saved, lost, gained, losses = [], [], [], []
    for one in searches:
        said = [chance(moment.ended, moment.left, rule) for moment in one.moments]
        losses += [
            -math.log(min(max(p if at.gained else 1 - p, 0.002), 1))
            for p, at in zip(said, one.moments, strict=True)
            if p < 1
        ]
        ends = (
            at
            for p, at in zip(said, one.moments, strict=True)
            if p < LEAST_CHANCE and chance(at.settled, at.left, rule) < LEAST_CHANCE
        )
        end = next(ends, None)
        saved.append(end.left / one.trials if end else 0.0)
        lost.append(100 * (one.best - end.before) if end else 0.0)
        gained += [one.best >= end.before + MARGIN] if end else []
    return Row(
        saved=statistics.mean(saved),
        lost=statistics.mean(lost),
        most_lost=max(lost),
        stopped=len(gained) / len(searches),
        gained=statistics.mean(gained) if gained else 0.0,
        log_loss=statistics.mean(losses),
    )


def reliability(tables: Sequence[Sequence[Searched]], rule: GainRule) -> list[tuple[int, float, float]]:
    """By bin of the stated chance: moments, mean of what was stated, frequency of what happened."""
    pairs = [
        (said, moment.gained)
        for searches in tables
        for one in searches
        for moment in one.moments
        if (said := chance(moment.ended, moment.left, rule)) < 1
    ]
    found = []
    for low, high in itertools.pairwise(BINS):
        own = [pair for pair in pairs if low <= pair[0] < high]
        found.append((len(own), *(statistics.mean(p[side] for p in own) if own else math.nan for side in (0, 1))))
    return found


def print_rows(title: str, rows: Mapping[str, Row]) -> None:
    """As Markdown."""
    print(f"\n| {title} | trials saved | points lost | most | ended early | of these would have gained | log loss |")
    print("| --- " * 7 + "|")
    for name, row in rows.items():
        shares = f"{row.saved:.0%} | {row.lost:.2f} | {row.most_lost:.1f} | {row.stopped:.0%} | {row.gained:.0%}"
        print(f"| {name} | {shares} | {row.log_loss:.3f} |")


def print_reliability(title: str, found: Sequence[tuple[int, float, float]]) -> None:
    """As Markdown."""
    print(f"\n| {title}: stated chance | moments | stated, mean | gained 0.2 points |\n| --- | --- | --- | --- |")
    for (low, high), (count, said, was) in zip(itertools.pairwise(BINS), found, strict=True):
        print(f"| {low:.0%} to {high:.0%} | {count} | {said:.1%} | {was:.1%} |")


def choose(tables: Mapping[str, Sequence[Searched]]) -> None:
    """Picks constants without each set in turn; both kinds of one set's curves are left out together."""
    known = {(name, rule): row_of(searches, rule) for name, searches in tables.items() for rule in RULES}
    sets = sorted({name.partition(" ")[0] for name in tables})
    print(f"\nchosen on all: {_chosen(known, list(tables))}")
    left = {}
    for left_out in sets:
        own = [name for name in tables if name.partition(" ")[0] == left_out]
        best = _chosen(known, [name for name in tables if name not in own])
        print(f"chosen without {left_out}: {best}")
        left |= {name: known[name, best] for name in own}
    print_rows("left out of the choice", left)
    for kind in sorted({name.partition(" ")[2] for name in tables}):
        print_means(f"left out, {kind}", [row for name, row in left.items() if name.endswith(kind)])


def _chosen(known: Mapping[tuple[str, GainRule], Row], names: Sequence[str]) -> GainRule:
    return min(RULES, key=lambda rule: sum(known[name, rule].log_loss for name in names))


def print_means(title: str, rows: Sequence[Row]) -> None:
    """Over tables."""
    saved, lost = statistics.mean(row.saved for row in rows), statistics.mean(row.lost for row in rows)
    print(f"\n{title}: {saved:.0%} of the trials saved, {lost:.2f} points lost on the mean")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="*", default=[HERE / "curves" / "emoji.json"])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--between", action="store_true", help="also curves between the recorded ones, with noise")
    parser.add_argument("--choose", action="store_true", help="also choose the constants, leaving one set out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    kinds = {"recorded": False, "between": True} if arguments.between else {"recorded": False}
    tables = {
        f"{problem.name} {kind}": [
            searched(problem, seed, trials=arguments.trials, slots=arguments.slots) for seed in range(arguments.seeds)
        ]
        for kind, between in kinds.items()
        for path in arguments.curves
        for problem in problems(path, between=between, each_backbone=False)
    }
    show(tables, arguments)


def show(tables: Mapping[str, Sequence[Searched]], arguments: argparse.Namespace) -> None:
    """Prints what the rule does, and whether it says the truth."""
    rows = {name: row_of(searches, RULE) for name, searches in tables.items()}
    print_rows(f"{arguments.trials} trials", rows)
    found = {}
    for kind in sorted({name.partition(" ")[2] for name in tables}):
        own = [name for name in tables if name.endswith(kind)]
        print_means(kind, [rows[name] for name in own])
        found[kind] = reliability([tables[name] for name in own], RULE)
        print_reliability(kind, found[kind])
    found["all"] = reliability(list(tables.values()), RULE)
    print_reliability("all", found["all"])
    if arguments.choose:
        choose(tables)
    if arguments.json:
        plain = {"benchmark": "stop_when_done", "trials": arguments.trials, "seeds": arguments.seeds}
        plain |= {"rows": {name: vars(row) for name, row in rows.items()}, "reliability": found}
        arguments.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
