"""The study's states are what happened, whatever happens: ends, faults, budgets, restarts, crashes."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from search_checks import behave, check_agreement, study_trials
from search_doubles import QuickTrial, Recorder, curve, drive, make_plan, read_log, start_trial, step_once

from tlsearch.config import AshaSpec
from tlsearch.errors import SearchStopped
from tlsearch.search import read_search
from tlsearch.search.conductor import Conductor
from tlsearch.search.opening import open_for_writing, study_attrs
from tlsearch.search.seeds import derive_seed
from tlsearch.types import Decision, EpochReport, TrialState


@pytest.mark.parametrize("slots", [1, 4])
def test_a_search_ends_with_every_trial_as_it_went(tmp_path: Path, slots: int) -> None:
    plan = make_plan(tmp_path / "s", trials=15)
    recorder = Recorder()
    assert drive(plan, slots=slots, observers=[recorder]) == "finished"
    check_agreement(plan)
    record = read_search(tmp_path / "s")
    assert [trial.number for trial in record.trials] == list(range(15))
    assert Counter(trial.state for trial in record.trials).keys() == {TrialState.COMPLETE, TrialState.PRUNED}
    assert {trial.reason for trial in record.trials} == {"completed", "asha"}
    for trial in record.trials:
        assert trial.seed == derive_seed(0, "trial", trial.number)
        assert [r.metrics["val_accuracy"] for r in trial.reports] == [
            curve(trial.config, trial.seed, epoch) for epoch in range(1, trial.epochs_run + 1)
        ]
        values = {report.epoch: report.metrics["val_accuracy"] for report in trial.reports}
        assert trial.best_value == max(values.values()) == values[trial.best_epoch or 0]
        assert trial.started is not None and trial.ended is not None
    assert record.best is not None and record.best.best_value == max(t.best_value or 0 for t in record.trials)
    assert len(recorder.of("started")) == len(recorder.of("ended")) == 15
    assert len(recorder.of("reported")) == sum(trial.epochs_run for trial in record.trials)


def test_the_states_of_faults(tmp_path: Path) -> None:
    root = tmp_path / "s"
    behave(
        root,
        {
            "1": {"kind": "diverge", "epoch": 2},
            "2": {"kind": "memory", "epoch": 1},
            "3": {"kind": "error", "epoch": 1},
            "4": {"kind": "diverge", "epoch": 1},
        },
    )
    recorder = Recorder()
    drive(make_plan(root, trials=6, scheduler=None), observers=[recorder])
    trials = study_trials(root)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "PRUNED", "COMPLETE"]
    assert [trial.constraints for trial in trials] == [{}, {"finite": 1.0}, {"memory": 1.0}, {}, {"finite": 1.0}, {}]
    record = read_search(root)
    assert [(t.state.value, t.reason, t.epochs_run) for t in record.trials] == [
        ("complete", "completed", 4),
        ("pruned", "diverged", 1),
        ("infeasible", "memory", 0),
        ("failed", "error", 0),
        ("pruned", "diverged", 0),
        ("complete", "completed", 4),
    ]
    assert record.trials[3].error == "RuntimeError: no such thing"
    assert "search_doubles.py" in trials[3].user_attrs["traceback"]
    outcomes = {number: outcome for _, number, outcome in recorder.of("ended")}
    assert [(o.state, o.reason) for _, o in sorted(outcomes.items())] == [(t.state, t.reason) for t in record.trials]
    assert outcomes[1].best_epoch == 1 and outcomes[4].best_value is None


def test_the_same_error_in_a_row_stops_the_search(tmp_path: Path) -> None:
    behave(tmp_path / "s", {"all": {"kind": "error", "epoch": 1}, "1": {"kind": None}})
    with pytest.raises(SearchStopped, match=r"ended 3 trials in a row.* trial 4: RuntimeError: no such thing"):
        drive(make_plan(tmp_path / "s", trials=9, max_failed_trials=3))
    states = [trial.state for trial in read_search(tmp_path / "s").trials]
    assert [state.value for state in states] == ["failed", "complete", "failed", "failed", "failed"]


def test_an_observer_that_fails_does_not_end_the_search(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
            raise RuntimeError("no tracking today")

    after = Recorder()
    drive(make_plan(tmp_path / "s", trials=2), observers=[Broken(), after])
    assert "Broken failed at trial 0" in caplog.text
    assert len(after.of("ended")) == 2 and after.of("reported")


def test_observers_hear_after_the_study_was_written(tmp_path: Path) -> None:
    root = tmp_path / "s"

    class Reader(Recorder):
        def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
            assert read_search(root).trials[number].reports[-1] == report
            super().trial_reported(number, report, decision)

        def trial_ended(self, number: int, outcome: Any) -> None:
            assert read_search(root).trials[number].state is outcome.state
            super().trial_ended(number, outcome)

    reader = Reader()
    drive(make_plan(root, trials=3), observers=[reader])
    assert len(reader.of("ended")) == 3 and len(reader.of("reported")) > 3


def test_no_report_is_without_the_metric_of_the_search(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=1)
    study = open_for_writing(plan.folder, mode="max", attrs=study_attrs(plan))
    conductor = Conductor(plan, study)
    assert conductor.next_trial() is not None
    with pytest.raises(KeyError):
        conductor.report(0, EpochReport(epoch=1, metrics={"val_loss": 1.0}, timestamp=0.0))
    study.close()
    assert read_search(tmp_path / "s").trials[0].reports == ()


@pytest.mark.parametrize("scheduler", [None, AshaSpec(grace_period=3, reduction_factor=3)])
def test_a_plateau_past_the_first_rung_is_complete(tmp_path: Path, scheduler: AshaSpec | None) -> None:
    plan = make_plan(tmp_path / "s", trials=8, max_epochs=30, patience=2, scheduler=scheduler)
    recorder = Recorder()
    assert drive(plan, slots=2, observers=[recorder]) == "finished"
    check_agreement(plan)
    plateaued = [trial for trial in read_search(tmp_path / "s").trials if trial.reason == "plateaued"]
    assert plateaued  # the made-up curves go flat long before the 30th epoch
    for trial in plateaued:
        assert trial.state is TrialState.COMPLETE and trial.epochs_run < 30
        assert trial.epochs_run - (trial.best_epoch or 0) >= 2
        assert scheduler is None or trial.epochs_run >= 3
    outcomes = {number: outcome for _, number, outcome in recorder.of("ended")}
    assert all(outcomes[t.number].reason == "plateaued" for t in plateaued)
    stored = {t.number: (t.state.name, t.value) for t in study_trials(tmp_path / "s")}
    assert all(stored[t.number] == ("COMPLETE", t.best_value) for t in plateaued)


@pytest.mark.parametrize("point", ["after_report_write:5", "before_tell:1"])
def test_a_plateau_that_a_crash_kept_from_its_end_is_told_at_the_resume(tmp_path: Path, point: str) -> None:
    plan = make_plan(tmp_path / "s", trials=3, max_epochs=30, patience=2, scheduler=None)
    child = os.fork()
    if child == 0:
        os.environ["TLSEARCH_CRASH_AT"] = point
        try:
            drive(plan)
        finally:
            os._exit(7)
    os.waitpid(child, 0)
    assert drive(plan) == "finished"
    check_agreement(plan)
    drive(make_plan(tmp_path / "whole", trials=3, max_epochs=30, patience=2, scheduler=None))
    assert [(t.reason, t.epochs_run, t.best_value) for t in read_search(tmp_path / "s").trials] == [
        (t.reason, t.epochs_run, t.best_value) for t in read_search(tmp_path / "whole").trials
    ]


def test_a_trial_keeps_its_bracket_over_a_restart(tmp_path: Path) -> None:
    asha = AshaSpec(grace_period=1, reduction_factor=2, brackets=3)
    plan, stop = make_plan(tmp_path / "s", trials=14, max_epochs=8, scheduler=asha), threading.Event()
    drive(plan, slots=3, observers=[StopAfter(stop, 9)], stop=stop)
    before = [trial.user_attrs["bracket"] for trial in study_trials(tmp_path / "s")]
    assert drive(plan, slots=2) == "finished"
    check_agreement(plan)
    trials = study_trials(tmp_path / "s")
    brackets = [trial.user_attrs["bracket"] for trial in trials]
    assert brackets[: len(before)] == before and set(brackets) == {0, 1, 2}
    for trial in trials:
        assert trial.state.name == "COMPLETE" or trial.last_step >= 2 ** trial.user_attrs["bracket"]


# --- budgets -------------------------------------------------------------------------------


class Clock:
    """A clock that goes on one second at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("on_budget", ["cut", "finish"])
def test_the_time_budget(tmp_path: Path, on_budget: str) -> None:
    plan = make_plan(tmp_path / "s", trials=50, max_epochs=5, scheduler=None, time_budget_s=60.0, on_budget=on_budget)
    assert drive(plan, slots=3, timer=Clock()) == "budget"
    trials = read_search(tmp_path / "s").trials
    assert 3 < len(trials) < 30
    reasons = {trial.reason for trial in trials}
    assert reasons == ({"completed", "budget"} if on_budget == "cut" else {"completed"})
    for trial in trials:
        if trial.reason == "budget":
            assert trial.state is TrialState.PRUNED and trial.best_epoch is not None
    assert drive(plan, timer=Clock()) == "budget"  # what was spent is not given again
    assert read_search(tmp_path / "s").trials == trials


def test_a_finished_search_is_extended(tmp_path: Path) -> None:
    assert drive(make_plan(tmp_path / "s", trials=3)) == "finished"
    before = read_search(tmp_path / "s").trials
    assert drive(make_plan(tmp_path / "s", trials=3)) == "finished"
    assert read_search(tmp_path / "s").trials == before
    assert drive(make_plan(tmp_path / "s", trials=5)) == "finished"
    after = read_search(tmp_path / "s").trials
    assert after[:3] == before and [trial.number for trial in after] == list(range(5))


def test_waiting_points_beyond_the_budget_are_not_shown_and_come_first_later(tmp_path: Path) -> None:
    start = ({"unfreeze_depth": 1}, {"unfreeze_depth": 2})
    drive(make_plan(tmp_path / "s", trials=1, start_with=start))
    assert [trial.params["unfreeze_depth"] for trial in read_search(tmp_path / "s").trials] == [1]
    drive(make_plan(tmp_path / "s", trials=4, start_with=start))
    assert [trial.params["unfreeze_depth"] for trial in read_search(tmp_path / "s").trials][:3] == [1, 2, 0]


# --- interruption and resume -----------------------------------------------------------------


class StopAfter(Recorder):
    """Sets the event after so many reports."""

    def __init__(self, stop: threading.Event, reports: int) -> None:
        super().__init__()
        self._stop, self._reports = stop, reports

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        super().trial_reported(number, report, decision)
        if len(self.of("reported")) >= self._reports:
            self._stop.set()


@pytest.mark.parametrize("reports", [1, 2, 7, 13])
def test_interrupted_and_resumed_is_as_uninterrupted(tmp_path: Path, reports: int) -> None:
    whole = make_plan(tmp_path / "whole", trials=10)
    drive(whole)
    plan, stop = make_plan(tmp_path / "s", trials=10), threading.Event()
    assert drive(plan, observers=[StopAfter(stop, reports)], stop=stop) == "interrupted"
    running = [trial for trial in read_search(tmp_path / "s").trials if trial.state is TrialState.RUNNING]
    assert len(running) <= 1
    recorder = Recorder()
    assert drive(plan, observers=[recorder]) == "finished"
    check_agreement(plan)
    strip = [(t.number, t.state, t.params, t.reports, t.best_value) for t in read_search(tmp_path / "s").trials]
    assert strip == [
        (t.number, t.state, t.params, t.reports, t.best_value) for t in read_search(tmp_path / "whole").trials
    ]
    for trial in running:  # it went on, from its checkpoint
        assert recorder.of("started")[0][1] == trial.number
        again = [
            line for line in read_log(tmp_path / "s") if line["number"] == trial.number and line["what"] == "epoch"
        ]
        assert [line["epoch"] for line in again] == list(range(1, len(again) + 1))


def test_repeated_reports_change_nothing(tmp_path: Path) -> None:
    """A checkpoint older than the study: its epochs run again and get the stored answers."""
    root = tmp_path / "s"
    behave(root, {"all": {"checkpoint": False}})
    plan, stop = make_plan(root, trials=3, scheduler=None), threading.Event()
    drive(plan, observers=[StopAfter(stop, 2)], stop=stop)
    before = study_trials(root)[0].user_attrs["report:1"]
    recorder = Recorder()
    assert drive(plan, observers=[recorder]) == "finished"
    check_agreement(plan)
    assert study_trials(root)[0].user_attrs["report:1"] == before
    epochs = [line["epoch"] for line in read_log(root) if line["number"] == 0 and line["what"] == "epoch"]
    assert epochs == [1, 2, 1, 2, 3, 4]
    assert [event[2] for event in recorder.of("reported") if event[1] == 0] == [3, 4]


def test_two_trials_report_in_between_the_order_is_kept(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=12, max_epochs=9)
    stop = threading.Event()
    drive(plan, slots=4, order=5, observers=[StopAfter(stop, 9)], stop=stop)
    assert drive(plan, slots=3, order=6) == "finished"
    check_agreement(plan)


POINTS = [
    "after_ask:1",
    "after_ask:4",
    "before_report_write:3",
    "after_report_write:2",
    "after_report_write:4",
    "before_tell:1",
    "before_tell:3",
    "after_tell:2",
    "inside_append:1",
    "inside_append:2",
    "inside_append:6",
    "inside_append:11",
]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("slots", [1, 3])
def test_killed_at_any_point_nothing_is_lost_or_doubled(tmp_path: Path, point: str, slots: int) -> None:
    plan = make_plan(tmp_path / "s", trials=6)
    child = os.fork()
    if child == 0:
        os.environ["TLSEARCH_CRASH_AT"] = point
        try:
            drive(plan, slots=slots, order=2)
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    assert drive(plan, slots=slots, order=3) == "finished"
    trials = study_trials(tmp_path / "s")
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.state.is_finished() for trial in trials)
    assert not list((tmp_path / "s").glob("trials/*/running"))  # no checkpoint of an ended trial stays
    check_agreement(plan)
    if slots == 1:
        drive(make_plan(tmp_path / "whole", trials=6))
        assert [(t.params, t.intermediate_values, t.state) for t in trials] == [
            (t.params, t.intermediate_values, t.state) for t in study_trials(tmp_path / "whole")
        ]


# --- workers that die ------------------------------------------------------------------------


def test_worker_deaths_are_counted_where_the_node_lives(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=2, max_failures=1)
    study = open_for_writing(plan.folder, mode="max", attrs=study_attrs(plan))
    conductor = Conductor(plan, study)
    first = conductor.next_trial()
    assert first is not None
    trial = start_trial(first)
    assert step_once(conductor, 0, trial)
    for _ in range(5):  # five nodes lost: no failure of the trial
        assert conductor.worker_died(0, node="gone", message="node died", alive=lambda: {"here"})
    assert conductor.worker_died(0, node="here", message="killed", alive=lambda: {"here"})
    assert conductor.handout(0).reported == 1
    assert not conductor.worker_died(0, node="", message="killed again", alive=lambda: {"here"})
    assert not step_once(conductor, 0, trial)  # too late: it has ended
    study.close()
    record = read_search(tmp_path / "s").trials[0]
    assert (record.state, record.error) == (TrialState.FAILED, "the worker died: killed again")
    assert record.epochs_run == 1


def test_a_death_that_nobody_can_tell_yet_is_judged_at_the_next(tmp_path: Path) -> None:
    """A node that was cut off counts as alive for some seconds."""
    plan = make_plan(tmp_path / "s", trials=2, max_failures=0)
    study = open_for_writing(plan.folder, mode="max", attrs=study_attrs(plan))
    conductor = Conductor(plan, study)
    for _ in range(2):
        assert conductor.next_trial() is not None
    nodes = {"here", "cut off"}
    for number in (0, 1):
        node = ("cut off", "here")[number]
        assert conductor.worker_died(number, node=node, message="?", alive=lambda: nodes, settled=False)
    nodes.discard("cut off")
    for number in (0, 1):
        goes_on = conductor.worker_died(number, node="here", message="?", alive=lambda: nodes, settled=False)
        assert goes_on == (number == 0)
    study.close()
    assert [trial.state for trial in read_search(tmp_path / "s").trials] == [TrialState.RUNNING, TrialState.FAILED]


def test_a_large_study_is_read_quickly(tmp_path: Path) -> None:
    import time

    drive(make_plan(tmp_path / "s", trials=200, sampler="random", max_epochs=3), factory=QuickTrial)
    start = time.perf_counter()
    assert len(read_search(tmp_path / "s").trials) == 200
    assert time.perf_counter() - start < 2.0


def test_a_search_that_has_not_started_is_empty(tmp_path: Path) -> None:
    record = read_search(tmp_path / "none", search_id="x", experiment="e", metric="val_loss")
    assert (record.trials, record.search_id, record.metric, record.mode) == ((), "x", "val_loss", "min")
    assert not (tmp_path / "none").exists()


def test_min_metrics(tmp_path: Path) -> None:
    from dataclasses import replace

    plan = make_plan(tmp_path / "s", trials=6, scheduler=AshaSpec(reduction_factor=2))
    plan = replace(plan, setup=replace(plan.setup, metric="val_loss"), search=replace(plan.search, metric="val_loss"))
    drive(plan, slots=2)
    record = read_search(tmp_path / "s")
    assert record.mode == "min" and record.best is not None
    assert record.best.best_value == min(t.best_value or 9 for t in record.trials)
    for trial in study_trials(tmp_path / "s"):
        assert trial.user_attrs["best_value"] == min(trial.intermediate_values.values())


def test_a_fixed_search_trains_every_entry_with_the_same_seeds(tmp_path: Path) -> None:
    entries = ({"head_lr": 1e-2, "unfreeze_depth": 0}, {"head_lr": 1e-3, "unfreeze_depth": 2})
    plan = make_plan(tmp_path / "s", trials=6, sampler="fixed", scheduler=None, start_with=entries, seeds=3)
    assert drive(plan) == "finished"
    trials = read_search(tmp_path / "s").trials
    assert [trial.config.head_lr for trial in trials] == [1e-2, 1e-3] * 3
    seeds = [trial.seed for trial in trials]
    assert seeds[0::2] == seeds[1::2] and len(set(seeds)) == 3
    assert {trial.reason for trial in trials} == {"completed"}
