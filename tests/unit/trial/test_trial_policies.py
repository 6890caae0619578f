"""Batch norm's policies `adapt` and `stats`: what they set, what they leave alone, what they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlsearch.core.errors import DataError
from tlsearch.core.types import TrialAssignment, WeightsSource
from tlsearch.data import normalise, open_pixels
from tlsearch.model import adapt_statistics, build_model, resolve_weights
from tlsearch.trial import FineTuning, bn_recalibration, release_held
from tlsearch.trial.process_cache import held_index

Assign = Callable[..., TrialAssignment]
STATISTICS = ("running_mean", "running_var")


def statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items() if name.endswith(STATISTICS)}


def pretrained(assignment: TrialAssignment) -> dict[str, Tensor]:
    backbone = assignment.config.backbone
    weights = resolve_weights(backbone, WeightsSource(kind="none"))
    return build_model(backbone, num_classes=3, weights=weights, image_size=32, seed=assignment.seed).state_dict()


@pytest.mark.parametrize("depth", [2, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (0, 5))])
def test_adapt_sets_the_training_images_statistics_and_keeps_them(assign: Assign, depth: int) -> None:
    assignment = assign(depth=depth, policy="adapt", augmentation="light")
    trial = FineTuning(assignment)
    adapted = statistics(trial.model.state_dict())
    index, transform = held_index(assignment.setup.data), trial._parts.context.transform
    images = normalise(open_pixels(index, "train", transform, assignment.setup.cache).images[:], transform)
    weights = resolve_weights("mobilenet_v3_small", WeightsSource(kind="none"))
    model = build_model("mobilenet_v3_small", num_classes=3, weights=weights, image_size=32, seed=1)
    adapt_statistics(model, [images])  # all 30 in one batch: exact for every layer
    for name, tensor in statistics(model.state_dict()).items():
        torch.testing.assert_close(adapted[name], tensor, rtol=1e-3, atol=1e-4)
    first = next(name for name in adapted if name.endswith("running_mean"))
    assert not torch.allclose(adapted[first], pretrained(assignment)[first])
    for _ in range(3):
        trial.step()
    assert all(torch.equal(tensor, adapted[name]) for name, tensor in statistics(trial.model.state_dict()).items())
    trial.close()


def test_adapted_statistics_are_computed_once_and_have_features_of_their_own(
    assign: Assign, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons, losses = [], []
    for name, policy in (("a", "frozen"), ("b", "adapt"), ("c", "adapt"), ("d", "frozen")):
        if name == "c":
            release_held()
            monkeypatch.setattr(bn_recalibration, "adapt_statistics", lambda *_: pytest.fail("computed twice"))
        trial = FineTuning(assign(name, policy=policy))
        report = trial.step()
        trial.close()
        reasons.append(report.source_reason.partition(": ")[2])
        losses.append(report.metrics["val_loss"])
    assert reasons == ["computed by this trial", "computed by this trial", "shared", "shared"]
    assert losses[0] == losses[3] and losses[1] == losses[2] and losses[0] != losses[1]


def test_adapting_to_a_single_image_is_the_users_fault(assign: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    assignment = assign(policy="adapt")
    index = held_index(assignment.setup.data)
    monkeypatch.setitem(index.splits, "train", type(index.splits["train"])(keys=("a",), labels=(0,), digests=("x",)))
    with pytest.raises(DataError, match="two training images"):
        FineTuning(assignment)


@pytest.mark.parametrize("depth", [2, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (0, 5))])
def test_stats_moves_statistics_everywhere_and_nothing_else_that_is_frozen(assign: Assign, depth: int) -> None:
    trial = FineTuning(assign(depth=depth, policy="stats"))
    before = {name: tensor.clone() for name, tensor in trial.model.state_dict().items()}
    trainable = set(trial.model.trainable_parameters())
    report = trial.step()
    after = trial.model.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    moving = {name for name in before if name.endswith((*STATISTICS, "num_batches_tracked"))}
    assert changed == trainable | moving
    assert report.source == "pixels"
    trial.close()


def test_stats_never_reads_stored_features_not_even_for_validation(assign: Assign) -> None:
    trial = FineTuning(assign(policy="stats"))
    assert (trial._parts.train.kind, trial._parts.val.kind) == ("pixels", "pixels")
    assert "running statistics move" in trial.step().source_reason
    trial.close()


def test_the_four_policies_are_four_trials(assign: Assign, tmp_path: Path) -> None:
    losses = set()
    for policy in ("frozen", "train", "adapt", "stats"):
        trial = FineTuning(assign(policy, depth=2, policy=policy))
        trial.step()
        losses.add(trial.step().metrics["val_loss"])
        trial.close()
    assert len(losses) == 4
