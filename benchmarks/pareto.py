#!/usr/bin/env python3
"""How soon a search finds the trade-off between accuracy and cost: hypervolume over replayed curves, by virtual time.

    pareto.py [CURVES.json ...] [--seeds 20] [--seconds 200] [--slots 2] [--recorded] [--json OUT] [--plot OUT.png]

The cost of a model is its counted work (million multiply-adds of one image), which the curves' file holds. The figure
is the hypervolume that a search's trials dominate (Zitzler and Thiele, 1998) as a fraction of that of the whole table,
over the gain in accuracy above guessing and the logarithm of the work, up to 1.25 times that of the dearest model.
The rivals are Optuna's own samplers over a study with two objectives, which cannot stop trials early. Else as
``search_quality.py``; curves between the recorded ones are used, too, unless --recorded is given.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from rivals import RANDOM_S, TwoObjectives
from search_quality import HERE, Problem, plan_of, problems
from search_tables import Scores, plot, print_table, row_of
from simulated import Between, Node, Replayed, Source, Trace

from tlsearch.core.types import ModelSpec, TrialConfig
from tlsearch.forecast.simulation import PROPOSAL_S, ControllerSearcher, Searcher, simulate
from tlsearch.testing.replay import Curve, Curves

COST = "latency_ms"
_DEAREST = 1.25


class ByModel:
    """Curves of which a configuration gets one of its own model: another one has another cost."""

    def __init__(self, curves: Curves, source_of: Callable[[Curves], Source]) -> None:
        self.curves = curves.curves
        models = dict.fromkeys(curve.config.model for curve in self.curves)
        self._sources = {
            model: source_of(replace(curves, curves=tuple(one for one in self.curves if one.config.model == model)))
            for model in models
        }

    def nearest(self, config: TrialConfig, seed: int) -> Curve:
        """See ``Source``."""
        return self._sources[config.model].nearest(config, seed)


Make = Callable[[Problem, int], Searcher]


def ours(**changes: Any) -> Make:
    """The project's search with two objectives, or with other settings."""

    def make(problem: Problem, seed: int) -> Searcher:
        plan = plan_of(problem, seed, **{"objectives": (problem.metric, COST), **changes})
        costs = problem.curves.about["work"]
        models = {curve.config.model: curve.config for curve in problem.curves.curves}
        sizes = {
            ModelSpec.of(config, plan.setup.data, plan.num_classes): {COST: costs[model]}
            for model, config in models.items()
        }
        return ControllerSearcher(replace(plan, sizes=sizes))

    return make


def optunas(sampler_of: Callable[[int], optuna.samplers.BaseSampler], suggest_s: float = RANDOM_S) -> Make:
    """A sampler of Optuna's over a study with two directions, every trial to its last epoch."""

    def make(problem: Problem, seed: int) -> Searcher:
        costs = problem.curves.about["work"]
        return TwoObjectives(
            problem.space,
            sampler_of(seed),
            seed=seed,
            metric=problem.metric,
            max_epochs=problem.max_epochs,
            cost_of=lambda config: float(costs[config.model]),
            suggest_s=suggest_s,
        )

    return make


CONTESTANTS: Mapping[str, Make] = {
    "ours": ours(),
    "ours with one objective": ours(objectives=()),
    "ours, random points": ours(sampler="random"),
    "ours without stopping": ours(scheduler=None),
    "Optuna's TPE (MOTPE), no stopping": optunas(
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
        PROPOSAL_S,
    ),
    "NSGA-II, population 50, no stopping": optunas(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "NSGA-II, population 16, no stopping": optunas(
        lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=16)
    ),
    "random, no stopping": optunas(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}


def hypervolume(points: Iterable[tuple[float, float]], *, chance: float, dearest: float) -> float:
    """Of (accuracy, cost): the area that they dominate, over accuracy and the logarithm of the cost."""
    area, best = 0.0, chance
    for value, cost in sorted(points, key=lambda one: (one[1], -one[0])):
        if value > best:
            area += (value - best) * math.log(_DEAREST * dearest / cost)
            best = value
    return area


def play(problem: Problem, make: Make, seed: int, *, slots: int, seconds: float, recorded: bool) -> Trace:
    """One search; its trace is the fraction of the hypervolume of the table."""
    costs: Mapping[str, float] = problem.curves.about["work"]
    metric, curves = problem.metric, problem.curves
    source = ByModel(curves, lambda own: own if recorded else Between(own, metric))
    node = Node(source)
    done = simulate(make(problem, seed), lambda start: Replayed(*node.open(start)), slots=slots, horizon_s=seconds)
    scale = {"chance": problem.chance, "dearest": max(costs.values())}
    table = [(max(one.columns[metric]), costs[one.config.model]) for one in curves.curves if one.num_epochs]
    whole = hypervolume(table, **scale)
    found: dict[float, float] = {}  # by cost the best value
    best: list[tuple[float, float]] = []
    first_four: dict[float, float] = {}
    for now, number, report in done.reports:
        cost, value = costs[done.trials[number].config.model], report.metrics[metric]
        if number < 4:
            first_four[cost] = max(value, first_four.get(cost, value))
        if value > found.get(cost, problem.chance):
            found[cost] = value
            best.append((now, hypervolume(((v, c) for c, v in found.items()), **scale) / whole))
    return Trace(
        best=tuple(best),
        num_trials=len(done.trials),
        num_epochs=len(done.reports),
        busy_s=sum(trial.busy_s for trial in done.trials.values()),
        suggest_s=done.suggest_s,
        first_four=hypervolume(((v, c) for c, v in first_four.items()), **scale) / whole,
    )


def scores_of(problem: Problem, make: Make, *, seeds: int, slots: int, seconds: float, recorded: bool) -> Scores:
    """One contestant with every seed."""
    options: dict[str, Any] = {"slots": slots, "seconds": seconds, "recorded": recorded}
    traces = tuple(play(problem, make, seed, **options) for seed in range(seeds))
    return Scores(
        traces=traces,
        areas=tuple(trace.area(seconds, 0.0) for trace in traces),
        early=tuple(trace.area(seconds / 4, 0.0) for trace in traces),
        final=tuple(trace.at(seconds, 0.0) for trace in traces),
    )


def main() -> None:
    """Compares on every file of curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path, nargs="*", default=[HERE / "curves" / "emoji_sizes.json"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=200.0, help="how long each search may take, virtual")
    parser.add_argument("--slots", type=int, default=2, help="trials at a time")
    parser.add_argument("--recorded", action="store_true", help="the recorded curves alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", nargs="*", help="contestants, by the beginning of their names")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("seeds", "seconds", "slots", "recorded")}
    result: dict[str, Any] = {"benchmark": "pareto", "settings": options}
    for path in arguments.curves:
        for problem in problems(path, between=False, each_backbone=False):
            chosen = {
                name: make
                for name, make in CONTESTANTS.items()
                if not arguments.only or name == "ours" or any(name.startswith(one) for one in arguments.only)
            }
            scores = {name: scores_of(problem, make, **options) for name, make in chosen.items()}
            rows = result[problem.name] = {name: row_of(one, scores["ours"]) for name, one in scores.items()}
            print(f"\n{problem.name}: {len(problem.curves.curves)} curves, hypervolume in percent of the table's")
            print_table("search", rows)
            if arguments.plot:
                plot(arguments.plot, problem.name, scores, chance=0.0, seconds=arguments.seconds)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
