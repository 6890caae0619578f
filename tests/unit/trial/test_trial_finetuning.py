"""A fine-tuning step by step: reports, the store, what stands still, and what is kept between trials."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlsearch.core.errors import DataError, FrozenMoved, Infeasible
from tlsearch.core.types import CacheSpec, DataSpec, EpochReport, TrialAssignment, repeatable
from tlsearch.data import open_pixels
from tlsearch.model import Part, StagedModel
from tlsearch.model.weights import resolve as weights_module
from tlsearch.trial import FineTuning, inputs, process_cache, release_held

Assign = Callable[..., TrialAssignment]


def run(assignment: TrialAssignment) -> tuple[EpochReport, ...]:
    trial = FineTuning(assignment)
    while trial.epochs_done < assignment.setup.max_epochs:
        trial.step()
    trial.close()
    return tuple(trial.reports)


def curve(reports: tuple[EpochReport, ...]) -> list[dict[str, float]]:
    return [{name: v for name, v in report.metrics.items() if repeatable(name)} for report in reports]


def test_a_trial_reports_every_epoch(assign: Assign) -> None:
    assignment = assign()
    trial = FineTuning(assignment)
    assert trial.epochs_done == 0 and not trial.reports
    for epoch in (1, 2, 3):
        report = trial.step()
        assert (report.epoch, trial.epochs_done) == (epoch, epoch)
        assert report.metrics.keys() >= {
            "train_loss",
            "train_accuracy",
            "val_loss",
            "val_accuracy",
            "val_macro_f1",
            "val_balanced_accuracy",
            "epoch_seconds",
            "images_per_second",
        }
        assert all(math.isfinite(value) for value in report.metrics.values())
    values = [report.metrics["val_accuracy"] for report in trial.reports]
    assert (trial.best_value, trial.best_epoch) == (max(values), values.index(max(values)) + 1)
    with pytest.raises(AssertionError):
        trial.step()
    trial.close()
    trial.close()


def test_the_same_seed_repeats_the_trial_and_another_does_not(assign: Assign) -> None:
    first, again, other = (
        curve(run(assign(name, depth=2, policy="train", augmentation="light", seed=seed)))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("changes", "source", "reason"),
    [
        ({}, "features", "computed by this trial"),
        ({"depth": 5, "policy": "train"}, "pixels", "depth 5"),
        ({"augmentation": "light"}, "pixels", "augmentation light"),
        ({"mixup": 0.2, "cutmix": 1.0}, "pixels", "mixup and cutmix: images are mixed before they enter"),
        ({"policy": "stats"}, "pixels", "bn_policy stats"),
        ({"stored": False}, "pixels", "features_gb is 0"),
        ({"depth": 4}, "pixels", "computing is cheaper"),
    ],
)
def test_a_report_says_what_it_read_and_why(assign: Assign, changes: dict[str, Any], source: str, reason: str) -> None:
    trial = FineTuning(assign(**changes))
    report = trial.step()
    trial.close()
    assert report.source == source
    assert reason in report.source_reason


def test_a_full_disk_sends_the_trial_to_the_pixels(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.node_cache.store.Store._evict", lambda *_: False)
    reports = run(assign())
    assert reports[0].source == "pixels" and "feature store may hold" in reports[0].source_reason


@pytest.mark.parametrize("changes", [{}, {"setup": {"cache": CacheSpec(views=2)}, "augmentation": "light"}])
def test_a_pass_that_does_not_fit_the_memory_sends_the_trial_to_the_pixels(
    assign: Assign, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    def no_room(*_: object) -> Iterator[Tensor]:
        raise Infeasible("out of memory while evaluating a single image")
        yield

    monkeypatch.setattr(inputs, "_pass", no_room)
    reports = run(assign(**changes))
    assert {report.source for report in reports} == {"pixels"}
    assert reports[0].source_reason.startswith("out of memory in a pass of a single image")


def test_a_second_trial_computes_and_lists_nothing_again(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    run(assign("first"))

    def fail(*_: object, **__: object) -> None:
        pytest.fail("done twice")

    monkeypatch.setattr(StagedModel, "forward_prefix", fail)
    monkeypatch.setattr(process_cache, "load_index", fail)
    monkeypatch.setattr(inputs, "open_pixels", fail)
    monkeypatch.setattr(weights_module, "_resolve", fail)
    reports = run(assign("second", head_lr=1e-3, batch_size=16))
    assert {report.source_reason for report in reports} == {"frozen below depth 0: shared"}


def test_random_weights_of_another_seed_are_another_entry(assign: Assign) -> None:
    for seed in (1, 2):
        assert "computed by this trial" in run(assign(f"{seed}", seed=seed))[0].source_reason


# each depth and each policy once or more; all pairs of them are slow
_QUICK = {(0, "frozen"), (1, "stats"), (2, "train"), (3, "adapt"), (4, "frozen"), (5, "train")}


@pytest.mark.parametrize(
    ("depth", "policy"),
    [
        pytest.param(*pair, marks=() if pair in _QUICK else pytest.mark.slow)
        for pair in product(range(6), ("frozen", "train", "adapt", "stats"))
    ],
)
def test_what_is_frozen_stands_still_and_the_rest_moves(assign: Assign, depth: int, policy: str) -> None:
    trial = FineTuning(assign(depth=depth, policy=policy, stored=False, augmentation="light"))
    model = trial.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = set(model.frozen_state())
    while trial.epochs_done < 3:
        trial.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(before) - frozen
    assert (depth == 5 and policy in ("train", "stats")) == (not frozen)
    trial.close()


def _train_without_guard(part: Part, mode: bool = True) -> Part:
    nn.Sequential.train(part, mode)
    return part


@pytest.mark.parametrize("max_epochs", [2, 3])
def test_without_the_eval_guard_the_trial_fails_loudly(
    assign: Assign, monkeypatch: pytest.MonkeyPatch, max_epochs: int
) -> None:
    """In the step of the last epoch, or in close() where the trial was stopped before."""
    monkeypatch.setattr(Part, "train", _train_without_guard)
    trial = FineTuning(assign(depth=2, policy="train", stored=False, setup={"max_epochs": max_epochs}))
    trial.step()
    with pytest.raises(FrozenMoved, match=r"stem\.\S*running_mean has changed|stem\.\S* has changed"):
        trial.step()
        trial.close()
    trial.close()  # what is left to do is done, and says nothing twice


def test_a_single_flipped_bit_is_found(assign: Assign) -> None:
    trial = FineTuning(assign(depth=1))
    trial.step()
    frozen = trial.model.frozen_state()
    name = next(name for name in frozen if name.startswith("stage2") and name.endswith("weight"))
    frozen[name].view(torch.int32).view(-1)[-1] ^= 1
    with pytest.raises(FrozenMoved, match=name):
        trial.close()


def test_a_closed_trial_leaves_no_model_behind(assign: Assign) -> None:
    gc.disable()
    try:
        trial = FineTuning(assign(depth=1))
        trial.step()
        model = weakref.ref(trial.model)
        trial.close()
        assert model() is None
    finally:
        gc.enable()


def test_the_best_epoch_of_a_loss_is_the_lowest(assign: Assign) -> None:
    trial = FineTuning(assign(setup={"metric": "val_loss"}))
    for _ in range(3):
        trial.step()
    values = [report.metrics["val_loss"] for report in trial.reports]
    assert (trial.best_value, trial.best_epoch) == (min(values), values.index(min(values)) + 1)
    trial.close()


def test_a_metric_that_the_data_cannot_have_is_the_users_fault(assign: Assign) -> None:
    with pytest.raises(DataError, match="10 classes or more; the data have 3"):
        FineTuning(assign(setup={"metric": "val_top5_accuracy"}))


def test_faulty_data_come_through_as_they_are(assign: Assign, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        FineTuning(assign(setup={"data": DataSpec(source="folder", path=str(tmp_path / "nowhere"))}))


def test_validation_pixels_are_those_of_the_evaluation(assign: Assign) -> None:
    """With augmentation too: the margin is the training images' alone."""
    trial = FineTuning(assign(depth=5, policy="train", augmentation="light"))
    expected = open_pixels(
        trial._parts.context.index, "val", trial._parts.context.transform, trial._assignment.setup.cache
    )
    assert torch.equal(trial._parts.val.rows, expected.images)
    trial.close()


def test_a_model_that_does_not_fit_is_infeasible(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(StagedModel, "to", no_room)
    with pytest.raises(Infeasible, match="out of memory for the model"):
        FineTuning(assign())


def test_a_second_process_finds_the_features_without_a_forward(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even to decide whether reading pays."""
    monkeypatch.setattr(inputs, "why_not_worth", lambda *_: None)
    run(assign("first", depth=1))
    release_held()
    inputs._boundaries.clear()
    monkeypatch.setattr(StagedModel, "forward_prefix", lambda *_: pytest.fail("a forward"))
    assert {report.source for report in run(assign("second", depth=1))} == {"features"}
