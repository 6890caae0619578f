"""What a trial is worth before its first step: part of its score, not of rungs, patience and the sampler's value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from search_checks import study_trials
from search_doubles import Recorder, StubTrial, drive, make_plan

from tlsearch.config import AshaSpec
from tlsearch.core.types import Decision, EpochReport, Mode, Objective, StartReport
from tlsearch.search import read_search
from tlsearch.search.scheduling.asha import AshaRules
from tlsearch.search.scheduling.stopping_rules import Judge, Observation, Rules
from tlsearch.testing.memory_tracker import MemoryTracker

RULES = Rules(objective=Objective.of("val_accuracy"), max_epochs=9, asha=AshaRules(max_epochs=9))


class Solved(StubTrial):
    """Every trial starts at 0.5."""

    def step(self) -> EpochReport:
        report = super().step()
        start = StartReport(metrics={"val_accuracy": 0.5, "val_loss": 0.5}, timestamp=report.timestamp - 0.5)
        return replace(report, start=start) if report.epoch == 1 else report


def seen(trial: int, epoch: int, value: float, start: float | None = None) -> Observation:
    return Observation(trial=trial, bracket=0, epoch=epoch, value=value, start=start)


def test_rungs_compare_trained_epochs() -> None:
    with_start, without = Judge(RULES), Judge(RULES)
    values = [0.3, 0.4, 0.2, 0.35, 0.1, 0.45, 0.25]
    told = [with_start.observe(seen(n, 1, value, start=0.5)) for n, value in enumerate(values)]
    assert told == [without.observe(seen(n, 1, value)) for n, value in enumerate(values)]
    assert Decision.STOP in {verdict.decision for verdict in told}


@pytest.mark.parametrize(("mode", "better", "worse"), [("max", 0.6, 0.4), ("min", 0.4, 0.6)])
def test_the_best_is_the_start_until_an_epoch_is_better(mode: Mode, better: float, worse: float) -> None:
    judge = Judge(Rules(objective=Objective(metric="x", mode=mode), max_epochs=9))
    steps = ((1, worse, (0.5, 0)), (2, 0.5, (0.5, 0)), (3, better, (better, 3)), (4, worse, (better, 3)))
    for epoch, value, best in steps:
        judge.observe(seen(0, epoch, value, start=0.5 if epoch == 1 else None))
        found = judge.best(0)
        assert found is not None and (found.value, found.epoch) == best
    trained = judge.trained(0)
    assert trained is not None and (trained.value, trained.epoch) == (better, 3)


def test_patience_counts_from_the_best_trained_epoch() -> None:
    judge = Judge(Rules(objective=Objective.of("val_accuracy"), max_epochs=9, patience=2))
    values = [0.1, 0.2, 0.3, 0.3, 0.2]  # none as good as the start, the best in epoch 3
    decisions = [judge.observe(seen(0, n, value, start=0.9 if n == 1 else None)) for n, value in enumerate(values, 1)]
    assert [one.reason for one in decisions] == ["", "", "", "", "plateaued"]


def test_study_record_and_tracker_have_the_start(tmp_path: Path) -> None:
    recorder, tracker = Recorder(), MemoryTracker()
    plan = make_plan(tmp_path / "s", trials=6, scheduler=AshaSpec(grace_period=1, reduction_factor=3))
    drive(plan, factory=Solved, observers=[recorder, tracker])
    record = read_search(tmp_path / "s")
    outcomes = {number: outcome for _, number, outcome in recorder.of("ended")}
    assert {trial.best_epoch == 0 for trial in record.trials} == {True, False}, "some start is not beaten"
    for trial, stored in zip(record.trials, study_trials(tmp_path / "s"), strict=True):
        values = [0.5, *(report.metrics["val_accuracy"] for report in trial.reports)]
        assert trial.best_value == max(values) and trial.best_epoch == values.index(max(values))
        assert (outcomes[trial.number].best_value, outcomes[trial.number].best_epoch) == (
            trial.best_value,
            trial.best_epoch,
        )
        assert trial.start is not None and trial.start.metrics["val_loss"] == 0.5
        assert 0 not in stored.intermediate_values and stored.user_attrs["best_epoch"] == trial.best_epoch
        if stored.state.name == "COMPLETE":
            assert stored.value == max(values[1:]), "the sampler sees what was trained"
        points = {(p.key, p.step): p.value for p in tracker.trials[trial.number].points}
        assert points["val_accuracy", 0] == 0.5 and ("train_loss", 0) not in points
        assert points["best_epoch", trial.best_epoch] == trial.best_epoch


def test_a_search_without_starts_reads_as_before_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    drive(make_plan(tmp_path / "s", trials=3))
    before = read_search(tmp_path / "s").trials
    assert all(trial.start is None and trial.best_epoch for trial in before)
    drive(make_plan(tmp_path / "s", trials=6), factory=Solved)
    after = read_search(tmp_path / "s").trials
    assert after[:3] == before and all(trial.start is not None for trial in after[3:])
