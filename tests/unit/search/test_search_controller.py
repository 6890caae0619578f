"""The study's states are what happened, whatever happens: ends, faults, budgets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from search_checks import behave, check_agreement, study_trials
from search_doubles import Recorder, curve, drive, make_plan

from tlsearch.config import AshaSpec
from tlsearch.core.errors import SearchStopped
from tlsearch.core.types import Decision, EpochReport, TrialState
from tlsearch.search import read_search
from tlsearch.search.controller.controller import Controller
from tlsearch.search.seeds import derive_seed
from tlsearch.search.study.storage import open_for_writing, study_attrs


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
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    controller = Controller(plan, study)
    assert controller.next_trial() is not None
    with pytest.raises(KeyError):
        controller.report(0, EpochReport(epoch=1, metrics={"val_loss": 1.0}, timestamp=0.0))
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


def test_a_search_that_has_not_started_is_empty(tmp_path: Path) -> None:
    record = read_search(tmp_path / "none", search_id="x", experiment="e", metric="val_loss")
    assert (record.trials, record.search_id, record.metric, record.objective.mode) == ((), "x", "val_loss", "min")
    assert not (tmp_path / "none").exists()


def test_min_metrics(tmp_path: Path) -> None:
    from dataclasses import replace

    plan = make_plan(tmp_path / "s", trials=6, scheduler=AshaSpec(reduction_factor=2))
    plan = replace(plan, setup=replace(plan.setup, metric="val_loss"), search=replace(plan.search, metric="val_loss"))
    drive(plan, slots=2)
    record = read_search(tmp_path / "s")
    assert record.objective.mode == "min" and record.best is not None
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
