"""Searches with folds: folds are rungs, the last mean is a trial's value, and whole trials rank before stopped ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from search_checks import study_trials
from search_doubles import QuickTrial, curve, drive, killed_at, make_plan

from tlsearch.config import AshaSpec
from tlsearch.core.types import EndReason, EpochReport, SearchRecord, TrialState
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.inspect.importance import importance_of
from tlsearch.tracking.sink.best_models import Progress

FOLDS = 5


class FoldStub(QuickTrial):
    """Its mean begins high by luck, and falls with each fold."""

    def step(self) -> EpochReport:
        fold = self.epochs_done + 1
        value = curve(self._assignment.config, self._assignment.seed, 6) + 0.3 / fold
        metrics = {"val_accuracy": value, "fold_epoch": 3.0, "epoch_seconds": 1.0}
        if fold > 1:
            metrics["val_accuracy_se"] = 0.01
        report = EpochReport(epoch=fold, metrics=metrics, timestamp=float(fold), folds=FOLDS)
        self.reports.append(report)
        return report


def plan_of(root: Path, **search: object) -> SearchPlan:
    plan = make_plan(root, max_epochs=20, folds=FOLDS, **search)
    return replace(plan, setup=replace(plan.setup, folds=plan.search.num_folds))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    plan = plan_of(tmp_path_factory.mktemp("folds") / "s", trials=24)
    assert drive(plan, factory=FoldStub) == "finished"
    return plan


@pytest.fixture
def record(plan: SearchPlan) -> SearchRecord:
    return read_search(Path(plan.directory))


def test_asha_stops_at_folds_and_a_whole_trial_has_all_of_them(record: SearchRecord) -> None:
    stopped = [trial.epochs_run for trial in record.trials if trial.reason == EndReason.ASHA]
    assert set(stopped) <= {1, 3}
    assert stopped.count(1) > len(record.trials) // 3
    whole = [trial for trial in record.trials if trial.state is TrialState.COMPLETE]
    assert whole
    assert {(trial.epochs_run, trial.folds, trial.partial) for trial in whole} == {(5, 5, False)}


def test_the_value_is_the_last_mean_everywhere(plan: SearchPlan, record: SearchRecord) -> None:
    for trial, stored in zip(record.trials, study_trials(Path(plan.directory)), strict=True):
        last = trial.reports[-1].metrics["val_accuracy"]
        assert (trial.best_value, trial.best_epoch, trial.model_epoch) == (last, trial.epochs_run, 3)
        assert stored.user_attrs["best_value"] == last
        if trial.state is TrialState.COMPLETE:
            assert stored.value == last


def test_trials_that_have_seen_all_folds_rank_before_those_that_were_stopped(record: SearchRecord) -> None:
    lucky = max(record.trials, key=lambda trial: trial.best_value or 0.0)
    assert lucky.partial, "a first fold looks best"
    ranked = record.ranked
    assert [trial.partial for trial in ranked] == sorted(trial.partial for trial in ranked)
    assert record.best == ranked[0]
    facts = SearchFacts(folds=FOLDS, images={"train": 60, "val": 20})
    rows = leaderboard(record, {}, facts)
    assert [row.trial for row in rows] == [trial.number for trial in ranked]
    assert [row.rank for row in rows] == sorted(row.rank or 0 for row in rows)
    assert rows[0].standard_error == 0.01
    assert facts.num_validation == 80
    progress = Progress("val_accuracy")
    for trial in record.trials:
        shown = progress.trial_ended(trial.number, trial, at=0.0)
    assert shown.metrics["best_trial"] == ranked[0].number


def test_importances_compare_means_over_the_same_folds(plan: SearchPlan) -> None:
    found = importance_of(study_trials(Path(plan.directory)), plan.setup.objective)
    assert found.epoch == 1


def test_a_killed_search_goes_on_as_it_would_have(tmp_path: Path, record: SearchRecord) -> None:
    plan = plan_of(tmp_path / "s", trials=24)
    killed_at("after_report_write:7", lambda: drive(plan, factory=FoldStub))
    assert drive(plan, factory=FoldStub) == "finished"
    again = read_search(tmp_path / "s")
    assert [t.best_value for t in again.trials] == [t.best_value for t in record.trials]
    assert [t.epochs_run for t in again.trials] == [t.epochs_run for t in record.trials]


def test_without_a_scheduler_each_trial_sees_all_folds(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", trials=3, scheduler=None)
    assert drive(plan, factory=FoldStub) == "finished"
    assert {trial.epochs_run for trial in read_search(tmp_path / "s").trials} == {FOLDS}
    assert plan.rules.asha is None
    assert plan_of(tmp_path / "t", scheduler=AshaSpec()).rules.max_epochs == FOLDS
