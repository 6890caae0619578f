"""Trials whose head is solved: one report, no step, and the model that the report is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tlsearch.core.types import SOLVED_HEADS, Decision, EndReason, EpochReport, TrialAssignment, repeatable
from tlsearch.model import Part
from tlsearch.train import Trainer, evaluate
from tlsearch.trial import FineTuning, first_batch, load_trained, process_cache, release_held, run_trial
from tlsearch.trial.run_trial import train_to
from tlsearch.trial.setup import open_trial

Assign = Callable[..., TrialAssignment]


class Reports:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[EpochReport] = []

    def report(self, report: EpochReport) -> Decision:
        self.heard.append(report)
        return Decision.CONTINUE


@pytest.fixture(autouse=True)
def _no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    release_held()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing trains a solved head")

    monkeypatch.setattr(Trainer, "train_epoch", refuse)


@pytest.mark.parametrize("head", SOLVED_HEADS)
def test_one_report_of_the_model_that_is_kept(assign: Assign, head: str) -> None:
    penalty = None if head == "cosine" else 0.1
    assignment, reporter = assign(head=head, head_penalty=penalty), Reports()
    outcome = run_trial(assignment, reporter)
    (report,) = reporter.heard
    assert outcome.reason is EndReason.COMPLETED and outcome.epochs_run == 1
    assert report.last and report.start is not None and report.source == "features"
    assert outcome.best_epoch == 0 and outcome.best_value == report.metrics["val_accuracy"]

    model, meta = load_trained(Path(assignment.directory) / "best")
    assert (meta.epoch, meta.config.head) == (0, head)
    opened = open_trial(replace(assign(), directory=f"{assignment.directory}-again"))
    again = evaluate(model, opened.val, opened.runtime, depth=0)
    assert again.metrics["val_loss"] == pytest.approx(report.metrics["val_loss"], rel=1e-5)


def test_it_sets_up_no_training(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing trains a solved head")

    for name in ("Trainer", "guard_frozen", "open_source"):
        monkeypatch.setattr(f"tlsearch.trial.setup.{name}", refuse)
    outcome = run_trial(assign(head="ridge", head_penalty=0.1), Reports())
    assert outcome.reason is EndReason.COMPLETED, outcome.error


def test_the_next_one_walks_no_backbone_and_its_model_is_whole(
    pretrained: Assign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process holds the backbone's tensors by name: a walk over its modules takes longer than solving the head."""
    run_trial(pretrained("first", head="ridge", head_penalty=0.1), Reports())
    walked: list[Part] = []
    state_dict = Part.state_dict

    def recorded(part: Part, *args: Any, **kwargs: Any) -> dict[str, Any]:
        walked.append(part)
        return state_dict(part, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Part, "state_dict", recorded)
        second = pretrained("second", head="ridge", head_penalty=1.0)
        assert run_trial(second, Reports()).reason is EndReason.COMPLETED
    assert walked and all(hasattr(part, "classifier") for part in walked), "heads alone"
    first, other = (load_trained(Path(second.directory).parent / one / "best")[0] for one in ("first", "second"))
    assert all(torch.equal(tensor, other.backbone_state()[name]) for name, tensor in first.backbone_state().items())


def test_a_killed_trial_solves_its_head_again(assign: Assign) -> None:
    assignment, reports = assign(head="ridge", head_penalty=0.1), []
    for _ in range(2):
        trial = FineTuning(assignment)  # never closed, as in a worker that is killed
        assert trial.epochs_done == 0
        reports.append(trial.step())
        trial.save()
    assert not (Path(assignment.directory) / "running").exists()
    first, again = ({n: v for n, v in one.metrics.items() if repeatable(n)} for one in reports)
    assert first == again


def test_a_dry_run_solves_the_head_of_its_batch(assign: Assign) -> None:
    assignment = assign(head="ridge", head_penalty=0.1)
    batch = first_batch(assignment)
    assert batch.num_images == assignment.config.batch_size and batch.train_loss > 0 and batch.val_loss > 0
    assert not Path(assignment.directory).exists()


def test_another_penalty_is_another_head_from_the_same_decomposition(assign: Assign) -> None:
    losses = []
    for penalty in (1e-3, 1.0, 1e3):
        reporter = Reports()
        run_trial(assign(f"trial-{penalty}", head="ridge", head_penalty=penalty), reporter)
        losses.append(reporter.heard[0].metrics["val_loss"])
        assert len(process_cache._spectra) == 1
    assert len(set(losses)) == 3


def test_the_longest_unused_decomposition_is_dropped_beyond_the_limit(
    assign: Assign, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trial(assign("first", head="cosine"), Reports())
    (first,) = process_cache._spectra.values()
    monkeypatch.setattr(process_cache, "_MAX_SPECTRA_BYTES", int(1.5 * first.num_bytes))
    run_trial(assign("again", head="cosine"), Reports())
    assert next(iter(process_cache._spectra.values())) is first
    run_trial(assign("other", head="cosine", seed=5), Reports())  # random weights: another backbone
    (second,) = process_cache._spectra.values()
    assert second is not first


def test_folds_are_solved_each_and_read_at_their_only_epoch(assign: Assign) -> None:
    reporter = Reports()
    outcome = run_trial(assign(setup={"folds": 3}, head="ridge", head_penalty=0.1), reporter)
    assert [(one.epoch, one.folds, one.last) for one in reporter.heard] == [(k, 3, False) for k in (1, 2, 3)]
    assert outcome.reason is EndReason.COMPLETED
    assert reporter.heard[-1].metrics["fold_epoch"] == 0


def test_for_a_promotion_it_is_solved_on_all_images(assign: Assign) -> None:
    one, all_images = (assign(name, head="ridge", head_penalty=0.1) for name in ("one", "all"))
    all_images = replace(all_images, setup=replace(all_images.setup, refit=True))
    assert train_to(one, 0) == train_to(all_images, 0) == ""
    weights = [load_trained(Path(each.directory) / "best")[0].head.classifier.weight for each in (one, all_images)]
    assert not torch.allclose(*weights)


VIT = "timm/test_vit"


@pytest.mark.parametrize("features", [None, "mean", "cls_mean"])
def test_what_the_head_sees_of_the_tokens_is_cached_for_itself(assign: Assign, features: str | None) -> None:
    figures = []
    for stored in (True, False):
        reporter = Reports()
        one = assign(f"{stored}", backbone=VIT, policy=None, stored=stored, features=features, head="cosine")
        outcome = run_trial(one, reporter)
        assert outcome.reason is EndReason.COMPLETED, outcome.error
        figures.append(reporter.heard[0].metrics["val_loss"])
        assert load_trained(Path(one.directory) / "best")[1].config.features == features
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def test_each_kind_of_features_is_another_entry(assign: Assign) -> None:
    heads = {}
    for features in ("cls", "mean", "cls_mean"):
        one = assign(features, backbone=VIT, policy=None, features=features, head="cosine")
        run_trial(one, Reports())
        heads[features] = load_trained(Path(one.directory) / "best")[0].head.classifier.weight
    assert not torch.allclose(heads["cls"], heads["mean"])
    assert heads["cls_mean"].shape[1] == 2 * heads["cls"].shape[1]
