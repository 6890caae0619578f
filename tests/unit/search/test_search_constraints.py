"""The user's constraints: measured before a trial is trained, told to the sampler, durable."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search_checks import check_agreement, study_trials
from search_doubles import Recorder, StubTrial, drive, make_plan, read_log, stub_gauge
from test_search_restarts import StopAfter

from tlsearch.config import ConstraintsSpec, Limit
from tlsearch.core.types import ModelSpec, TrialState
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.scheduling.stopping_rules import complaint, excess
from tlsearch.search.worker.messages import Job
from tlsearch.search.worker.trial_runner import Runner

SIZES = {
    "resnet18": {"params_millions": 11.2, "checkpoint_mb": 44.8},
    "mobilenet_v2": {"params_millions": 2.2, "checkpoint_mb": 9.0},
}


def limited(root: Path, *, limits: dict[str, float], **search: Any) -> SearchPlan:
    constraints = ConstraintsSpec(**{name: Limit(max=limit) for name, limit in limits.items()})
    plan = make_plan(root, constraints=constraints, **search)
    sizes = {ModelSpec(backbone=name, num_classes=plan.num_classes): one for name, one in SIZES.items()}
    return replace(plan, sizes=sizes)


def test_excess_is_a_share_of_the_limit() -> None:
    limits = {"params_millions": 8.0, "latency_ms": 20.0}
    assert excess({"params_millions": 12.0, "latency_ms": 20.0, "checkpoint_mb": 9.0}, limits) == {
        "params_millions": 0.5,
        "latency_ms": 0.0,
    }
    assert complaint({"params_millions": 8.0, "latency_ms": 20.0}, limits) == ""
    assert complaint({}, limits) == ""
    told = complaint({"params_millions": 12.0, "latency_ms": 25.0}, limits)
    assert told == (
        "12 million parameters, at most 8 (search.constraints.params_millions); "
        "25 ms an image, at most 20 (search.constraints.latency_ms)"
    )


def test_a_backbone_that_is_too_large_is_not_trained(tmp_path: Path) -> None:
    root, recorder = tmp_path / "s", Recorder()
    assert drive(limited(root, limits={"params_millions": 8.0}, trials=12, sampler="random"), observers=[recorder]) == (
        "finished"
    )
    trials = read_search(root).trials
    assert [trial.number for trial in trials] == list(range(12))
    trained = {line["number"] for line in read_log(root)}
    large = [trial for trial in trials if trial.config.backbone == "resnet18"]
    assert 0 < len(large) < 12
    for trial in large:
        assert (trial.state, trial.reason, trial.epochs_run) == (TrialState.INFEASIBLE, "constraint", 0)
        assert trial.error.startswith("11.2 million parameters, at most 8") and trial.number not in trained
        assert trial.measured == {"params_millions": 11.2}
    stored = {trial.number: trial for trial in study_trials(root)}
    for trial in trials:
        value = 11.2 / 8 - 1 if trial in large else 2.2 / 8 - 1
        assert stored[trial.number].constraints == {"params_millions": pytest.approx(value)}
        assert (stored[trial.number].state.name == "PRUNED") >= (trial in large)
    ended = {number: outcome for _, number, outcome in recorder.of("ended")}
    assert {number for number, outcome in ended.items() if outcome.reason == "constraint"} == {t.number for t in large}
    assert len(recorder.of("started")) == 12
    best = read_search(root).best
    assert best is not None and best.config.backbone == "mobilenet_v2"


def test_a_search_in_which_nothing_is_feasible_ends(tmp_path: Path) -> None:
    plan = limited(tmp_path / "s", limits={"checkpoint_mb": 1.0}, trials=7)
    assert drive(plan) == "finished"
    record = read_search(tmp_path / "s")
    assert len(record.trials) == 7 and record.best is None
    assert not read_log(tmp_path / "s")


def test_a_slow_model_ends_before_its_first_epoch(tmp_path: Path) -> None:
    root = tmp_path / "s"
    plan = limited(root, limits={"latency_ms": 25.0, "params_millions": 100.0}, trials=14, scheduler=None)
    drive(plan)
    check_agreement(plan)
    trials = read_search(root).trials
    slow = [trial for trial in trials if trial.config.unfreeze_depth >= 3]
    assert 0 < len(slow) < 14
    for trial in trials:
        assert trial.measured["latency_ms"] == 10.0 * trial.config.unfreeze_depth
        assert (trial.reason == "constraint") == (trial in slow) == (trial.epochs_run == 0)
    assert {line["number"] for line in read_log(root)} == {t.number for t in trials} - {t.number for t in slow}
    stored = study_trials(root)
    assert all(set(trial.constraints) == {"latency_ms", "params_millions"} for trial in stored)
    assert [max(trial.constraints.values()) > 0 for trial in stored] == [trial in slow for trial in trials]


def test_tpe_learns_to_keep_the_constraint(tmp_path: Path) -> None:
    plan = limited(tmp_path / "s", limits={"latency_ms": 15.0}, trials=60, scheduler=None, max_epochs=2)
    drive(plan)
    feasible = [trial.config.unfreeze_depth <= 1 for trial in read_search(tmp_path / "s").trials]
    assert sum(feasible[30:]) > 30 * 2 / 6 + 6  # by chance it would be a third


def test_a_trial_that_goes_on_is_not_measured_again(tmp_path: Path) -> None:
    root, stop = tmp_path / "s", threading.Event()
    plan = limited(root, limits={"latency_ms": 25.0}, trials=2, scheduler=None)
    drive(plan, observers=[StopAfter(stop, 2)], stop=stop)
    first = read_search(root).trials[0]
    assert first.state is TrialState.RUNNING and first.measured == {"latency_ms": 0.0}
    from tlsearch.search.controller.controller import Controller
    from tlsearch.search.study.storage import open_for_writing, study_attrs

    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    handout = Controller(plan, study).next_trial()
    study.close()
    assert handout is not None and handout.measured == {"latency_ms": 0.0}
    asked: list[object] = []

    def gauge(assignment: object, names: object) -> dict[str, float]:
        asked.append(assignment)
        return {"latency_ms": 1e9}

    assert Runner(handout, StubTrial, gauge=gauge).step().report is not None
    assert asked == []


def test_a_gauge_that_fails_is_retried_like_a_trial(tmp_path: Path) -> None:
    plan = limited(tmp_path / "s", limits={"latency_ms": 25.0}, trials=1)
    drive(plan)
    record = read_search(tmp_path / "s").trials[0]
    from tlsearch.core.types import TrialAssignment

    assignment = TrialAssignment(
        number=0, seed=1, config=record.config, setup=plan.setup, directory=str(tmp_path / "s" / "trials" / "0")
    )
    calls: list[int] = []

    def gauge(assigned: TrialAssignment, names: Any) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("the device is busy")
        return stub_gauge(assigned, names)

    job = Job(assignment=assignment, reported=0, max_failures=2, limits={"latency_ms": 25.0}, gauged=("latency_ms",))
    message = Runner(job, StubTrial, gauge=gauge).step()
    assert message.report is not None and len(calls) == 3
    failing = Runner(replace(job, max_failures=0), StubTrial, gauge=lambda a, n: {}[str(a)]).step()  # type: ignore[arg-type]
    assert failing.outcome is not None and failing.outcome.reason == "error"
    assert failing.outcome.error.startswith("KeyError")
