"""Trials with folds: means over whole trainings, one pass over the images for all folds, and going on after a death."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from tlsearch.core.types import Decision, EpochReport, Objective, TrialAssignment, best_seen, repeatable
from tlsearch.data import fold_indexes
from tlsearch.model import StagedModel
from tlsearch.trial import FineTuning, FoldTraining, run_trial
from tlsearch.trial.fold_training import mean_of
from tlsearch.trial.process_cache import held_index
from tlsearch.trial.setup import open_trial

Assign = Callable[..., TrialAssignment]
FOLDS = {"folds": 3}


class Reports:
    """A reporter that keeps what it hears, and stops a trial after one of its reports."""

    def __init__(self, last: int = 99) -> None:
        self.heard: list[EpochReport] = []
        self._last = last

    def report(self, report: EpochReport) -> Decision:
        self.heard.append(report)
        return Decision.STOP if report.epoch >= self._last else Decision.CONTINUE


def figures(reports: list[EpochReport]) -> list[dict[str, float]]:
    return [{name: value for name, value in one.metrics.items() if repeatable(name)} for one in reports]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images of each batch that went through a whole prefix."""
    seen: list[int] = []
    whole = StagedModel.forward_prefix

    def counted(self: StagedModel, rows: Tensor, depth: int, **more: int) -> Tensor:
        seen.append(len(rows))
        return whole(self, rows, depth, **more)

    monkeypatch.setattr(StagedModel, "forward_prefix", counted)
    return seen


def test_a_report_is_the_mean_over_the_folds_so_far(assign: Assign, passes: list[int]) -> None:
    assignment, listener = assign(setup=FOLDS, head_init="probe"), Reports()
    outcome = run_trial(assignment, listener)
    assert [(one.epoch, one.folds, one.source) for one in listener.heard] == [(k, 3, "features") for k in (1, 2, 3)]
    assert sum(passes) == 51, "the images of train and val pass once, whatever the number of folds"

    alone = []
    for fold in (1, 2, 3):
        setup = replace(assignment.setup, fold=fold)
        training = FineTuning(replace(assignment, setup=setup, directory=f"{assignment.directory}-{fold}"))
        while training.epochs_done < setup.max_epochs:
            training.step()
        training.close()
        first = training.reports[0].start
        assert first is not None
        values = [one.metrics["val_accuracy"] for one in training.reports]
        alone.append([first.metrics["val_accuracy"], *values])
        assert not (Path(training._assignment.directory) / "best").exists(), "no model of a fold is kept"
    last = listener.heard[-1].metrics
    means = [statistics.fmean(column) for column in zip(*alone, strict=True)]
    assert last["val_accuracy"] == max(means)
    epoch = int(last["fold_epoch"])
    assert epoch == means.index(max(means))
    own = [curve[epoch] for curve in alone]
    assert last["fold_val_accuracy"] == own[-1]
    assert last["val_accuracy_se"] == pytest.approx(statistics.stdev(own) / 3**0.5)
    assert "val_accuracy_se" not in listener.heard[0].metrics
    assert (outcome.best_value, outcome.best_epoch, outcome.epochs_run) == (max(means), 3, 3)
    assert list(Path(assignment.directory).glob("*")) == []


def test_folds_are_read_at_one_common_epoch_and_the_last_mean_counts() -> None:
    curves = [{e: {"val_accuracy": v} for e, v in enumerate(c)} for c in ((0.2, 0.9, 0.6), (0.2, 0.1, 0.6))]
    objective = Objective.of("val_accuracy")
    assert mean_of(curves[:1], objective) == {"val_accuracy": 0.9, "fold_epoch": 1.0, "fold_val_accuracy": 0.9}
    both = mean_of(curves, objective)
    assert (both["val_accuracy"], both["fold_epoch"], both["val_accuracy_se"]) == (0.6, 2.0, 0.0)
    reports = [EpochReport(epoch=k, metrics=mean_of(curves[:k], objective), timestamp=0.0, folds=2) for k in (1, 2)]
    assert best_seen(reports, objective) == (0.6, 2)


def test_a_trial_goes_on_in_the_middle_of_a_fold(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.trial.finetuning.RUNNING_INTERVAL_S", 0.0)
    monkeypatch.setattr("tlsearch.trial.fold_training.RUNNING_INTERVAL_S", 0.0)
    whole, first, again = Reports(), Reports(), Reports()
    run_trial(assign("whole", setup=FOLDS), whole)

    class Killed(BaseException):
        pass

    step, steps = FineTuning.step, list[int]()

    def dying(self: FineTuning) -> EpochReport:
        report = step(self)
        steps.append(report.epoch)
        if len(steps) == 5:
            raise Killed
        return report

    monkeypatch.setattr(FineTuning, "step", dying)
    with pytest.raises(Killed):
        run_trial(assign("cut", setup=FOLDS), first)
    run_trial(assign("cut", setup=FOLDS), again)
    assert steps == [1, 2, 3, 1, 2, 3, 1, 2, 3], "no epoch of the second fold twice"
    assert figures(again.heard) == figures(whole.heard)


def test_the_finished_folds_of_another_trial_are_not_gone_on_from(assign: Assign) -> None:
    trial = FoldTraining(assign(setup=FOLDS))
    trial.step()
    trial.save()
    trial.close()
    assert FoldTraining(assign(setup=FOLDS)).epochs_done == 1
    assert FoldTraining(assign(setup=FOLDS, seed=2)).epochs_done == 0
    assert FoldTraining(assign(setup={"folds": 4})).epochs_done == 0
    (Path(assign().directory) / "running" / "folds.json").write_text("{")
    assert FoldTraining(assign(setup=FOLDS)).epochs_done == 0


@pytest.mark.parametrize("config", [{}, {"depth": 2}, {"augmentation": "light", "depth": 1}, {"policy": "adapt"}])
def test_a_fold_reads_the_same_numbers_from_the_shared_pool_as_from_images_of_its_own(
    assign: Assign, config: dict[str, object]
) -> None:
    setup = {"folds": 3, "fold": 2}
    shared = assign("shared", setup=setup, head_init="probe", **config)  # type: ignore[arg-type]
    opened = open_trial(shared)
    fold = fold_indexes(held_index(shared.setup.data), 3, seed=0)[1]
    alone = open_trial(shared, index=replace(fold, shared={}))
    for one in (opened, alone):
        assert len(one.train) == 34
        assert one.start is not None
    assert opened.start is not None
    assert alone.start is not None
    assert opened.start.metrics == pytest.approx(alone.start.metrics, abs=1e-5)
    losses = [one.trainer.train_epoch(one.train, seed=1, epoch=1).loss for one in (opened, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_fixed_views_of_a_fold_are_those_of_the_pool(assign: Assign) -> None:
    cache = replace(assign().setup.cache, views=2)
    setups = [{"folds": 3, "fold": fold, "cache": cache} for fold in (1, 2)]
    losses = []
    for stored in (True, False):
        cached = replace(cache, features_gb=None if stored else 0)
        one = assign(setup={**setups[0], "cache": cached}, augmentation="light")
        opened = open_trial(one)
        assert opened.train.kind == ("features" if stored else "pixels")
        losses.append(opened.trainer.train_epoch(opened.train, seed=1, epoch=1).loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
