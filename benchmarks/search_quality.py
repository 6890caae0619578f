#!/usr/bin/env python3
"""How soon a search finds good models: the project's own against others, over replayed curves and a virtual clock.

    search_quality.py [CURVES.json ...] [--seeds 20] [--seconds 400] [--slots 2] [--json OUT] [--plot OUT.png] [--quick]

Every contestant searches the space that the curves were recorded from, on the same simulated slots, and is charged for
everything: proposals, trial starts, what is stored first, epochs. The score is the area under the best value found so
far, over seconds: its mean from the start to --seconds. Differences are paired over seeds, with a bootstrap interval of
95 %. `ours` is what `tlsearch run` does; rows with - lack one part of it, rows with + have one that is off by default.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promotion import PromotionSearcher, Rule
from rivals import OneEpochTopK, Stock
from search_tables import Scores, plot, print_table, row_of, summarise, worst_lag
from simulated import Between, Source, replayed

from tlsearch.config import AshaSpec, ResourcesSpec, SearchSpec
from tlsearch.core.types import DataSpec, TrialSetup
from tlsearch.forecast.simulation import ControllerSearcher, Searcher
from tlsearch.search import SearchPlan
from tlsearch.space import Space
from tlsearch.testing.replay import Curves, read_curves

HERE = Path(__file__).parent
ENDLESS = 10**6


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A data set's recorded curves as a search problem."""

    name: str
    curves: Curves
    space: Space
    metric: str = "val_accuracy"
    source: Source

    @property
    def max_epochs(self) -> int:
        """Of a whole trial."""
        return self.curves.curves[0].max_epochs

    @property
    def chance(self) -> float:
        """The accuracy of guessing: the best so far before the first report."""
        return 1 / int(self.curves.about["classes"])


def problems(path: Path, *, between: bool, each_backbone: bool) -> Iterator[Problem]:
    """The curves of a file as one problem, or those of each backbone as one."""
    whole = read_curves(path)
    names = Space.from_json(whole.about["space"]).backbones()
    for chosen in [(name,) for name in names] if each_backbone else [names]:
        tree = json.loads(whole.about["space"])
        for dimension in tree["dimensions"]:
            if dimension["name"] == "backbone":
                dimension["domain"] = {"fixed": chosen[0]} if len(chosen) == 1 else {"choice": list(chosen)}
        curves = replace(whole, curves=tuple(curve for curve in whole.curves if curve.config.backbone in chosen))
        yield Problem(
            name="_".join([path.stem, *(chosen[0].split("/")[-1:] if each_backbone else [])]),
            curves=curves,
            space=Space.from_json(json.dumps(tree)),
            source=Between(curves, "val_accuracy") if between else curves,
        )


Make = Callable[[Problem, int], Searcher]


def plan_of(problem: Problem, seed: int, **changes: Any) -> SearchPlan:
    """The project's search of a problem, with some settings changed."""
    search = replace(SearchSpec(trials=ENDLESS, max_epochs=problem.max_epochs, seed=seed), **changes)
    return SearchPlan(
        search_id="simulated",
        experiment="simulated",
        directory=tempfile.gettempdir() + "/tlsearch-simulated",  # nothing is written
        space=problem.space,
        setup=TrialSetup(data=DataSpec(source="digits"), max_epochs=problem.max_epochs, metric=problem.metric),
        search=search,
        resources=ResourcesSpec(),
    )


def ours(**changes: Any) -> Make:
    """The project's search with some settings changed."""
    return lambda problem, seed: ControllerSearcher(plan_of(problem, seed, **changes))


def promoting(rule: Rule) -> Make:
    """The project's search with trials that pause at rungs."""
    return lambda problem, seed: PromotionSearcher(plan_of(problem, seed), rule)


def stock(*, tpe: bool, factor: int) -> Make:
    """Ray's searcher and scheduler."""

    def make(problem: Problem, seed: int) -> Searcher:
        return Stock(
            problem.space,
            seed=seed,
            metric=problem.metric,
            mode="max",
            max_epochs=problem.max_epochs,
            tpe=tpe,
            factor=factor,
        )

    return make


def one_epoch(width: int, keep: int) -> Make:
    """One epoch for all, then the best to the end."""

    def make(problem: Problem, seed: int) -> Searcher:
        return OneEpochTopK(
            problem.space,
            seed=seed,
            metric=problem.metric,
            sign=1.0,
            max_epochs=problem.max_epochs,
            width=width,
            keep=keep,
        )

    return make


CONTESTANTS: Mapping[str, Make] = {
    "ours": ours(),
    "stock OptunaSearch + ASHA, factor 4": stock(tpe=True, factor=4),
    "stock OptunaSearch + ASHA, factor 3": stock(tpe=True, factor=3),
    "random + ASHA, factor 4": stock(tpe=False, factor=4),
    "random + ASHA, factor 3": stock(tpe=False, factor=3),
    "one epoch, then the top 2 of 16": one_epoch(16, 2),
    "one epoch, then the top 4 of 32": one_epoch(32, 4),
    "one epoch, then the top 8 of 64": one_epoch(64, 8),
}
PARTS: Mapping[str, Make] = {
    "none of the parts: default point, TPE, ASHA": ours(starting_points="none", cost_aware=False),
    "- starting points, cheap points in their place": ours(starting_points="none"),
    "+ grace_period 2": ours(scheduler=AshaSpec(grace_period=2)),
    "+ brackets 2": ours(scheduler=AshaSpec(brackets=2)),
    "+ reduction_factor 2": ours(scheduler=AshaSpec(reduction_factor=2)),
    "+ no ASHA": ours(scheduler=None),
    "promotion in place of stopping": promoting("promotion"),
    "stopping, and revival of what was stopped": promoting("stopping and revival"),
}


def play(problem: Problem, make: Make, *, seeds: int, slots: int, seconds: float) -> Scores:
    """Lets one contestant search with every seed."""
    traces = tuple(
        replayed(make(problem, seed), problem.source, slots=slots, horizon_s=seconds, metric=problem.metric, sign=1.0)
        for seed in range(seeds)
    )
    return Scores(
        traces=traces,
        areas=tuple(trace.area(seconds, problem.chance) for trace in traces),
        early=tuple(trace.area(seconds / 4, problem.chance) for trace in traces),
        final=tuple(trace.at(seconds, problem.chance) for trace in traces),
    )


def judge(problem: Problem, arguments: argparse.Namespace) -> dict[str, Any]:
    """All tables of one data set."""
    options = {"seeds": arguments.seeds, "slots": arguments.slots, "seconds": arguments.seconds}
    first = dict(list(CONTESTANTS.items())[:: 3 if arguments.quick else 1])
    scores = {name: play(problem, make, **options) for name, make in first.items()}
    parts = {} if arguments.quick or arguments.no_parts else PARTS
    found = {name: row_of(one, scores["ours"]) for name, one in scores.items()}
    for name, row in found.items():
        row["worst_lag_of_ours"] = worst_lag(scores["ours"], scores[name], arguments.seconds, problem.chance)
    best = max(max(curve.columns[problem.metric], default=0.0) for curve in problem.curves.curves)
    print(f"\n{problem.name}: {len(problem.curves.curves)} curves, the best of them {best:.4f}")
    print_table("search", found)
    own = {name: row_of(play(problem, make, **options), scores["ours"]) for name, make in parts.items()}
    if own:
        print_table("part", {"ours": found["ours"], **own})
    if arguments.plot:
        path = arguments.plot.with_stem(f"{arguments.plot.stem}_{problem.name}")
        plot(path, problem.name, scores, chance=problem.chance, seconds=arguments.seconds)
    return {"curves": len(problem.curves.curves), "best_curve": best, "searches": found, "parts": own}


def main() -> None:
    """Judges on every file of curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="*", default=[HERE / "curves" / "emoji.json"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=400.0, help="how long each search may take, virtual")
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--between", action="store_true", help="curves between the recorded ones, too")
    parser.add_argument(
        "--each-backbone", action="store_true", help="the curves of each backbone as a table of its own"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--no-parts", action="store_true", help="the contestants alone")
    parser.add_argument("--quick", action="store_true", help="three seeds, fewer rows: the harness, not a figure")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.seconds = 3, 60.0
    settings = {"seeds": arguments.seeds, "seconds": arguments.seconds, "slots": arguments.slots}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    tables: dict[str, Any] = {}
    for path in arguments.curves:
        for problem in problems(path, between=arguments.between, each_backbone=arguments.each_backbone):
            tables[problem.name] = judge(problem, arguments)
    summarise(tables)
    if arguments.json:
        result = {"benchmark": "search_quality", "machine": machine, "settings": settings, **tables}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
