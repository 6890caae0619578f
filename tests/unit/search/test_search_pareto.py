"""A search with two objectives: its rungs, what its sampler sees, what its models cost, and the same after restarts."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from search_checks import check_agreement, check_decisions, study_trials
from search_doubles import drive, make_plan
from test_search_migrate import space
from test_search_restarts import StopAfter

from tlsearch.core.pareto import pareto_order
from tlsearch.core.types import Decision, ModelSpec, Objective, TrialAssignment, TrialConfig
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.controller.controller import Controller
from tlsearch.search.controller.live_trials import ModelCosts
from tlsearch.search.sampling.pareto_view import ParetoView
from tlsearch.search.sampling.points import first_points
from tlsearch.search.scheduling.asha import AshaRules, Rungs
from tlsearch.search.scheduling.stopping_rules import Judge, Observation, Rules
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.space import Choice, FloatRange, IntRange
from tlsearch.testing.memory_tracker import MemoryTracker
from tlsearch.tracking import BestKeeper

ACCURACY, LATENCY = Objective.of("val_accuracy"), Objective.of("latency_ms")
BOTH = ("val_accuracy", "latency_ms")
BACKBONES = Choice(values=("resnet18", "mobilenet_v2"))
WIDE = space(
    backbone=BACKBONES,
    image_size=Choice(values=(64, 96, 128)),
    unfreeze_depth=IntRange(low=0, high=5),
    head_lr=FloatRange(low=1e-4, high=1e-1, log=True),
    backbone_lr=FloatRange(low=1e-6, high=1e-3, log=True),
)


def plan_of(root: Path, trials: int, **search: Any) -> SearchPlan:
    return replace(make_plan(root, trials=trials, objectives=BOTH, **search), space=WIDE)


def entered(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of some trials, by value and cost, go on from a rung where a third does."""
    rungs = Rungs(AshaRules(max_epochs=9), ACCURACY, LATENCY)
    return [rungs.enter(bracket=0, epoch=1, best=value, cost=cost) for value, cost in points]


def test_a_cheap_trial_goes_on_beside_a_better_one() -> None:
    one_objective = Rungs(AshaRules(max_epochs=9), ACCURACY)
    values = [0.9, 0.2, 0.6, 0.5]
    assert [one_objective.enter(bracket=0, epoch=1, best=value) for value in values] == [True, False, False, False]
    assert entered([(0.9, 20.0), (0.2, 30.0), (0.6, 30.0), (0.5, 5.0)]) == [True, False, False, True]


def test_a_trial_that_others_dominate_stops() -> None:
    assert entered([(0.5, 5.0), (0.9, 20.0), (0.9, 5.0), (0.8, 6.0), (0.8, 6.0)]) == [True, False, True, False, False]


def test_a_long_rung_is_as_its_definition_says() -> None:
    rng, points = random.Random(0), list[tuple[float, float]]()
    rungs = Rungs(AshaRules(max_epochs=9), ACCURACY, LATENCY)
    for _ in range(200):
        value, cost = round(rng.random(), 2), float(rng.randrange(1, 6))
        points.append((value, -cost))
        goes_on = len(points) - 1 in pareto_order(points)[: math.ceil(len(points) / 3)]
        assert rungs.enter(bracket=0, epoch=1, best=value, cost=cost) is goes_on
        assert rungs.enter(bracket=0, epoch=2, best=value, cost=cost)  # no rung here


def test_the_judge_looks_at_the_cost() -> None:
    asha = AshaRules(max_epochs=9)
    judge = Judge(Rules(objective=ACCURACY, max_epochs=9, asha=asha, cost=LATENCY))
    seen = [(0, 0.9, 9.0), (1, 0.1, 9.0), (2, 0.1, 9.0), (3, 0.5, 1.0)]
    decisions = [
        judge.observe(Observation(trial=trial, bracket=0, epoch=1, value=value, cost=cost)).decision
        for trial, value, cost in seen
    ]
    assert decisions == [Decision.CONTINUE, Decision.STOP, Decision.STOP, Decision.CONTINUE]


# --- what the sampler sees ---------------------------------------------------------------------


class Spy(optuna.samplers.RandomSampler):
    """Keeps what a study shows it."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        self.seen = study._get_trials(deepcopy=False, states=None)
        return {}


def stored(state: TrialState, value: float, cost: float, *, epoch: int = 4, **more: Any) -> Any:
    return create_trial(
        state=state,
        value=value if state is TrialState.COMPLETE else None,
        intermediate_values={epoch: value},
        user_attrs={"measured": {"latency_ms": cost}},
        **more,
    )


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_sampler_sees_places(direction: str) -> None:
    sign = 1.0 if direction == "maximize" else -1.0
    objective = Objective(metric="x", mode="max" if sign > 0 else "min")
    study = optuna.create_study(direction=direction)
    complete, pruned = TrialState.COMPLETE, TrialState.PRUNED
    given = [(complete, 0.5, 5.0, 4), (complete, 0.9, 20.0, 4), (complete, 0.4, 6.0, 4), (complete, 0.7, 9.0, 4)]
    given += [(pruned, 0.2, 5.0, 1), (pruned, 0.3, 5.0, 1), (pruned, 0.1, 5.0, 3)]
    for state, value, cost, epoch in given:
        study.add_trial(stored(state, sign * value, cost, epoch=epoch))
    spy = Spy()
    view = ParetoView(spy, objective=objective, cost="latency_ms")
    view.infer_relative_search_space(study, study.trials[0])
    values = [trial.value if trial.state is complete else trial.intermediate_values for trial in spy.seen]
    assert values[:4] == [0.0, -sign, -3 * sign, -2 * sign]
    assert values[4:] == [{1: -sign}, {1: 0.0}, {3: 0.0}]
    assert [trial.value for trial in study.trials[:2]] == [sign * 0.5, sign * 0.9]  # the study is as it was


def test_what_no_value_ranks_is_shown_as_it_is() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(stored(TrialState.COMPLETE, 0.5, 5.0))
    study.add_trial(create_trial(state=TrialState.PRUNED))
    study.add_trial(stored(TrialState.PRUNED, 0.9, 5.0, constraints={"latency_ms": 0.1}))
    running = study.ask().number
    spy = Spy()
    ParetoView(spy, objective=ACCURACY, cost="latency_ms").infer_relative_search_space(study, study.trials[0])
    assert [trial.number for trial in spy.seen] == [0, 1, 2, running]
    assert [dict(trial.intermediate_values) for trial in spy.seen] == [{4: 0.5}, {}, {4: 0.9}, {}]


# --- what models cost --------------------------------------------------------------------------


def test_the_first_measurement_of_a_model_counts_for_all_its_trials(tmp_path: Path) -> None:
    costs = ModelCosts(plan_of(tmp_path, 3))
    small, large = TrialConfig(backbone="resnet18", image_size=64), TrialConfig(backbone="resnet18", image_size=128)
    assert costs.of(small) == 0.0
    assert costs.shared(small, {"latency_ms": 5.0}) == {"latency_ms": 5.0}
    assert costs.shared(replace(small, unfreeze_depth=3), {"latency_ms": 7.0}) == {"latency_ms": 5.0}
    assert costs.shared(small, {}) == {"latency_ms": 5.0}
    assert costs.shared(large, {}) == {} and costs.of(small) == 5.0
    one_objective = ModelCosts(replace(plan_of(tmp_path, 3), search=make_plan(tmp_path).search))
    assert one_objective.shared(small, {"latency_ms": 5.0}) == {"latency_ms": 5.0}
    assert one_objective.shared(small, {"latency_ms": 7.0}) == {"latency_ms": 7.0}  # a constraint's


MS = {"resnet18": 1.8, "mobilenet_v2": 0.3}


def noisy(assignment: TrialAssignment, names: Sequence[str]) -> Mapping[str, float]:
    """No two trials measure the same."""
    config = assignment.config
    assert names == ("latency_ms",)
    return {"latency_ms": MS[config.backbone] * ((config.image_size or 224) / 32) ** 2 + assignment.number / 1000}


@pytest.fixture
def gauged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_doubles.stub_gauge", noisy)


def all_of(root: Path) -> list[Any]:
    return [(t.params, t.state, t.reason, t.reports, t.measured, t.origin) for t in read_search(root).trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_goes_on_as_it_would_have(tmp_path: Path, gauged: None, sampler: str) -> None:
    drive(plan_of(tmp_path / "whole", 28, sampler=sampler))
    for trials in (3, 11, 28):
        drive(plan_of(tmp_path / "parts", trials, sampler=sampler))
    stop = threading.Event()
    drive(plan_of(tmp_path / "cut", 28, sampler=sampler), observers=[StopAfter(stop, 22)], stop=stop)
    assert any(trial.state == "running" for trial in read_search(tmp_path / "cut").trials)
    drive(plan_of(tmp_path / "cut", 28, sampler=sampler))
    assert all_of(tmp_path / "cut") == all_of(tmp_path / "whole") == all_of(tmp_path / "parts")
    for name in ("whole", "cut", "parts"):
        check_agreement(plan_of(tmp_path / name, 28, sampler=sampler))


@pytest.mark.parametrize("slots", [1, 4])
def test_a_front_is_found(tmp_path: Path, gauged: None, slots: int) -> None:
    root = tmp_path / "s"
    keeper, restored = (BestKeeper(MemoryTracker(), directory=root, keep=1, objective=ACCURACY) for _ in range(2))
    drive(plan_of(root, 40), slots=slots, observers=[keeper])
    check_decisions(plan_of(root, 40))
    record = read_search(root)
    restored.restore(record)
    kept = {trial.number for trial in record.front}
    assert set(keeper.kept) == set(restored.kept) == kept and len(kept) > 1
    assert (record.metric, record.cost) == BOTH
    by_model: dict[str, set[float]] = {}
    for trial in record.trials:
        by_model.setdefault(trial.config.model, set()).add(trial.measured["latency_ms"])
    assert len(by_model) == 6 and all(len(values) == 1 for values in by_model.values())
    front = record.front
    assert front and front[-1] == record.best
    values = [(trial.measured["latency_ms"], trial.best_value or 0.0) for trial in front]
    assert values == sorted(values) and [value for _, value in values] == sorted(value for _, value in values)
    for trial in record.ranked:
        assert any(c <= trial.measured["latency_ms"] and v >= (trial.best_value or 0.0) for c, v in values)


def test_every_model_is_looked_at_or_some_of_many(tmp_path: Path) -> None:
    points = first_points(plan_of(tmp_path, 40))
    assert [one.origin for one in points] == ["default", *["first_look"] * 5]
    assert len({(one.values["backbone"], one.values["image_size"]) for one in points}) == 6
    assert {one.values["image_size"] for one in points[:2]} == {128}  # nearest to that of the weights
    many = space(backbone=BACKBONES, image_size=IntRange(low=32, high=256, step=16))
    assert len(first_points(replace(plan_of(tmp_path, 40), space=many))) == 2 + 16
    one_objective = replace(make_plan(tmp_path, trials=40), space=WIDE)
    assert len(first_points(one_objective)) == 2


def test_sizes_are_known_before_a_trial_runs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", 12, scheduler=None)
    plan = replace(plan, search=replace(plan.search, objectives=("val_accuracy", "params_millions")))
    sizes = {
        ModelSpec(backbone=name, num_classes=0, image_size=size): {"params_millions": millions, "checkpoint_mb": 1.0}
        for name, millions in (("resnet18", 11.2), ("mobilenet_v2", 2.2))
        for size in (64, 96, 128)
    }
    drive(replace(plan, sizes=sizes))
    for trial in study_trials(tmp_path / "s"):
        millions = {"resnet18": 11.2, "mobilenet_v2": 2.2}[trial.user_attrs["config"]["backbone"]]
        assert trial.user_attrs["measured"] == {"params_millions": millions}
    assert {trial.config.backbone for trial in read_search(tmp_path / "s").front} <= {"resnet18", "mobilenet_v2"}


def test_a_worker_measures_what_no_trial_of_the_model_has(tmp_path: Path, gauged: None) -> None:
    root = tmp_path / "s"
    drive(plan_of(root, 14))
    plan = plan_of(root, 15)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    job = Controller(plan, study).next_trial()
    study.close()
    assert job is not None and job.gauged == ("latency_ms",) and job.limits == {}
    first = next(one for one in read_search(root).trials if one.config.model == job.assignment.config.model)
    assert job.measured == first.measured
