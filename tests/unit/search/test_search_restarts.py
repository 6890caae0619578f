"""A search that was interrupted, killed, or lost workers: nothing is lost, nothing doubled."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from search_checks import behave, check_agreement, study_trials
from search_doubles import Recorder, drive, killed_at, make_plan, read_log, start_trial, step_once

from tlsearch.config import AshaSpec
from tlsearch.core.types import Decision, EpochReport, TrialState
from tlsearch.search import read_search
from tlsearch.search.controller.controller import Controller
from tlsearch.search.study.storage import open_for_writing, study_attrs


@pytest.mark.parametrize("point", ["after_report_write:5", "before_tell:1"])
def test_a_plateau_that_a_crash_kept_from_its_end_is_told_at_the_resume(tmp_path: Path, point: str) -> None:
    plan = make_plan(tmp_path / "s", trials=3, max_epochs=30, patience=2, scheduler=None)
    killed_at(point, lambda: drive(plan))
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
    killed_at(point, lambda: drive(plan, slots=slots, order=2))
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


def test_worker_deaths_are_counted_where_the_node_lives(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "s", trials=2, max_failures=1)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    controller = Controller(plan, study)
    first = controller.next_trial()
    assert first is not None
    trial = start_trial(first)
    assert step_once(controller, 0, trial)
    for _ in range(5):  # five nodes lost: no failure of the trial
        assert controller.worker_died(0, node="gone", message="node died", alive=lambda: {"here"})
    assert controller.worker_died(0, node="here", message="killed", alive=lambda: {"here"})
    assert controller.job(0).reported == 1
    assert not controller.worker_died(0, node="", message="killed again", alive=lambda: {"here"})
    assert not step_once(controller, 0, trial)  # too late: it has ended
    study.close()
    record = read_search(tmp_path / "s").trials[0]
    assert (record.state, record.error) == (TrialState.FAILED, "the worker died: killed again")
    assert record.epochs_run == 1


def test_a_death_that_nobody_can_tell_yet_is_judged_at_the_next(tmp_path: Path) -> None:
    """A node that was cut off counts as alive for some seconds."""
    plan = make_plan(tmp_path / "s", trials=2, max_failures=0)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    controller = Controller(plan, study)
    for _ in range(2):
        assert controller.next_trial() is not None
    nodes = {"here", "cut off"}
    for number in (0, 1):
        node = ("cut off", "here")[number]
        assert controller.worker_died(number, node=node, message="?", alive=lambda: nodes, settled=False)
    nodes.discard("cut off")
    for number in (0, 1):
        goes_on = controller.worker_died(number, node="here", message="?", alive=lambda: nodes, settled=False)
        assert goes_on == (number == 0)
    study.close()
    assert [trial.state for trial in read_search(tmp_path / "s").trials] == [TrialState.RUNNING, TrialState.FAILED]
