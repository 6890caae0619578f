"""Trials with folds: means over whole trainings, one pass over the images for all folds, and going on after a death."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tlsearch.core.types import Decision, EpochReport, Objective, TrialAssignment, best_seen, repeatable
from tlsearch.data import fold_indexes, split_digest, with_val_in_train
from tlsearch.model import StagedModel
from tlsearch.trial import FineTuning, FoldTraining, context, run_trial
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
    assert [path.name for path in Path(assignment.directory).glob("*")] == ["val_logits.safetensors"]


def test_each_image_is_kept_as_the_fold_that_held_it_out_says(assign: Assign) -> None:
    """At the common epoch, in the order of train and val together; after fewer folds those of these folds alone."""
    for last in (1, 3):
        assignment, listener = assign(f"after-{last}", setup=FOLDS, head_init="probe"), Reports(last)
        run_trial(assignment, listener)
        path = Path(assignment.directory) / "val_logits.safetensors"
        with safe_open(path, framework="numpy") as opened:
            found = {name: opened.get_tensor(name) for name in ("logits", "labels", "folds")}
            metadata = opened.metadata()
        report = listener.heard[-1].metrics
        pool = with_val_in_train(held_index(assignment.setup.data))
        assert metadata == {"epoch": str(last), "digest": split_digest(pool.splits["train"])}
        folds = fold_indexes(held_index(assignment.setup.data), 3, seed=0)[:last]
        rows = sorted((row, number) for number, one in enumerate(folds, start=1) for row in one.kept("val").rows or ())
        assert found["folds"].tolist() == [number for _, number in rows]
        assert found["labels"].tolist() == [pool.splits["train"].labels[row] for row, _ in rows]
        right = found["logits"].argmax(1) == found["labels"]
        assert found["logits"].dtype == np.float16
        per_fold = [right[found["folds"] == number].mean() for number in range(1, last + 1)]
        assert np.mean(per_fold) == pytest.approx(report["val_accuracy"])


def test_too_many_logits_are_not_kept(assign: Assign, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """All images times classes times epochs count, the epoch before the first step among them."""
    monkeypatch.setattr(context, "MAX_LOGITS", 51 * 3 * 4 - 1)
    assignment = assign(setup=FOLDS, head_init="probe")
    run_trial(assignment, Reports())
    assert list(Path(assignment.directory).glob("*")) == []
    assert caplog.text.count("51 images of 3 classes at 4 epochs") == 1


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
    files = [Path(assign(name, setup=FOLDS).directory) / "val_logits.safetensors" for name in ("whole", "cut")]
    whole_tensors, cut_tensors = map(load_file, files)
    assert all(torch.equal(whole_tensors[name], cut_tensors[name]) for name in ("logits", "labels", "folds"))


def test_folds_that_an_earlier_version_finished_are_gone_on_from(assign: Assign) -> None:
    """It kept no logits of them, so the trial keeps none."""
    trial = FoldTraining(assign(setup=FOLDS))
    trial.step()
    trial.save()
    trial.close()
    path = Path(assign().directory) / "running" / "folds.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: one for name, one in content.items() if not name.startswith("tensors")}))
    (Path(assign().directory) / "val_logits.safetensors").unlink()
    listener = Reports()
    run_trial(assign(setup=FOLDS), listener)
    assert [one.epoch for one in listener.heard] == [1, 2, 3]
    assert list(Path(assign().directory).glob("*")) == []


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
