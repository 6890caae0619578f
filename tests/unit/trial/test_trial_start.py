"""The solved head is a candidate: evaluated before the first step and kept unless an epoch is better."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tlsearch.core.types import Decision, EpochReport, TrialAssignment, TrialState
from tlsearch.train import evaluate, read_model_meta
from tlsearch.trial import FineTuning, finetuning, keep_start, load_trained, run_trial

Assign = Callable[..., TrialAssignment]
TRIALS: list[dict[str, Any]] = [
    {},
    {"depth": 2, "policy": "train", "augmentation": "light", "ema": 0.9},
    pytest.param({"depth": 5, "policy": "stats", "head_dropout": 0.5}, marks=pytest.mark.slow),
    pytest.param({"depth": 2, "policy": "adapt", "unfreeze_schedule": "progressive"}, marks=pytest.mark.slow),
    pytest.param({"depth": 1, "stored": False}, marks=pytest.mark.slow),
]


class Always:
    """A reporter with one answer."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def report(self, report: EpochReport) -> Decision:
        return self._decision


@pytest.mark.parametrize("changes", TRIALS)
def test_the_start_is_what_an_evaluation_before_the_first_step_gives(assign: Assign, changes: dict[str, Any]) -> None:
    trial = FineTuning(assign(head_init="probe", **changes))
    parts = trial._parts
    with trial._kept_weights():
        direct = evaluate(parts.trainer.model, parts.val, parts.runtime, depth=parts.trainer.depth)
    first, second = trial.step(), trial.step()
    assert first.start is not None and second.start is None
    assert first.start.metrics == pytest.approx(direct.metrics, rel=1e-4)
    assert first.start.timestamp < first.timestamp
    trial.close()


@pytest.mark.parametrize("metric", [pytest.param("val_accuracy", marks=pytest.mark.slow), "val_loss"])
def test_the_solved_head_is_kept_where_training_takes_it_down(assign: Assign, tmp_path: Path, metric: str) -> None:
    assignment = assign(head_init="probe", head_lr=10.0, setup={"metric": metric, "max_epochs": 2})
    outcome = run_trial(assignment, Always(Decision.CONTINUE))
    best = tmp_path / "trial" / "best"
    meta, confusion = read_model_meta(best), json.loads((best / "confusion.json").read_text())
    assert outcome.state is TrialState.COMPLETE and outcome.epochs_run == 2
    assert (outcome.best_epoch, meta.epoch, confusion["epoch"]) == (0, 0, 0)
    assert outcome.best_value == meta.value
    model, _ = load_trained(best)
    solved = FineTuning(replace(assignment, directory=str(tmp_path / "other")))
    assert torch.equal(model.head.classifier.weight, solved.model.head.classifier.weight)
    solved.close()


def test_an_epoch_that_is_better_takes_its_place(assign: Assign, tmp_path: Path) -> None:
    trial = FineTuning(assign(head_init="probe", head_lr=1e-4, setup={"metric": "val_loss"}))
    report = trial.step()
    assert report.start is not None
    better = report.metrics["val_loss"] < report.start.metrics["val_loss"]
    assert trial.best_epoch == read_model_meta(tmp_path / "trial" / "best").epoch == (1 if better else 0)
    trial.close()


def test_a_trial_cut_after_one_epoch_has_its_start(assign: Assign) -> None:
    outcome = run_trial(assign(head_init="probe", head_lr=10.0), Always(Decision.STOP))
    assert (outcome.state, outcome.epochs_run, outcome.best_epoch) == (TrialState.PRUNED, 1, 0)


def test_a_random_head_has_no_start(assign: Assign) -> None:
    trial = FineTuning(assign(head_init="random"))
    trial.begin()
    assert trial.best_value is None and trial.step().start is None
    trial.close()


def test_a_resumed_trial_keeps_its_start(assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    assignment = assign(head_init="probe", head_lr=10.0, depth=1)
    first = FineTuning(assignment).step()  # never closed, as a killed worker
    resumed = FineTuning(assignment)
    assert resumed.reports == (first,) and first.start is not None
    assert (resumed.best_epoch, resumed.best_value) == (0, first.start.metrics["val_accuracy"])
    assert resumed.step().start is None
    assert read_model_meta(tmp_path / "trial" / "best").epoch == 0
    resumed.close()


def test_a_start_is_kept_without_a_step_and_refitted_on_all_images(assign: Assign, tmp_path: Path) -> None:
    plain, refit = assign("plain", head_init="probe"), assign("refit", head_init="probe")
    keep_start(plain)
    keep_start(replace(refit, setup=replace(refit.setup, refit=True)))
    heads = [load_trained(tmp_path / name / "best")[0].head.classifier.weight for name in ("plain", "refit")]
    assert not torch.equal(*heads), "the images of val are in it"
    similar = torch.cosine_similarity(heads[0].flatten(), heads[1].flatten(), dim=0)
    assert similar > 0.8
    assert read_model_meta(tmp_path / "refit" / "best").epoch == 0
