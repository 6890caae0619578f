"""The early look at the features: a quarter into the first epoch that trains the backbone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from tlsearch.core.errors import Diverged
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.types import EpochReport, TrialAssignment, WeightsSource
from tlsearch.trial import FineTuning, feature_collapse

Assign = Callable[..., TrialAssignment]
PAIRS = {"depth": 2, "batch_size": 2}  # 15 steps


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_collapse, "_MIN_EARLY_STEPS", 4)


def first_epoch(assignment: TrialAssignment) -> EpochReport:
    trial = FineTuning(assignment)
    try:
        return trial.step()
    finally:
        trial.close()


def test_distorted_features_are_told_after_a_quarter_of_the_epoch(pretrained: Assign) -> None:
    with pytest.raises(Diverged) as raised:
        first_epoch(pretrained(policy="frozen", backbone_lr=1.0, **PAIRS))
    told = str(raised.value)
    assert "the pretrained features are distorted" in told and "after 4 of the 15 steps of epoch 1" in told
    assert "drift is" in told and "latest training loss" in told and f"{math.log(3):.3g}" in told


VIT = "timm/test_vit3"


def transformer(assign: Assign, tmp_path: Path, *, backbone_lr: float, adapt: str = "none") -> TrialAssignment:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.save(timm.create_model("test_vit3", num_classes=3).state_dict(), tmp_path / "vit.pth")
    rank = 4 if adapt == "lora" else None
    values = {"policy": None, "backbone": VIT, "backbone_lr": backbone_lr, "adapt": adapt, "lora_rank": rank, **PAIRS}
    assignment = assign(adapt, **values)
    source = WeightsSource(kind="file", path=str(tmp_path / "vit.pth"))
    return replace(assignment, setup=replace(assignment.setup, weights={VIT: source}))


def test_a_backbone_without_batch_norm_has_its_own_limit(
    assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_collapse, "_DISTORTED_EARLY_DRIFT_WITHOUT_BN", 0.3)
    with pytest.raises(Diverged, match=r"after 4 of the 15 steps of epoch 1 .* \(far from 0\.3 on\)"):
        first_epoch(transformer(assign, tmp_path, backbone_lr=1.0))


def test_adapted_stages_are_not(assign: Assign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_collapse, "_DISTORTED_EARLY_DRIFT_WITHOUT_BN", -1.0)
    too_high = replace(TASKS["single_label"], guess=lambda *_: (0.0, 0.0))  # any loss is
    monkeypatch.setattr(feature_collapse, "task_of", lambda _: too_high)
    with pytest.raises(Diverged, match="after 4 of the 15 steps"):
        first_epoch(transformer(assign, tmp_path, backbone_lr=1e-4))
    assert first_epoch(transformer(assign, tmp_path, backbone_lr=1e-4, adapt="lora")).epoch == 1


@pytest.mark.parametrize(
    ("policy", "backbone_lr"), [("train", 1.0), pytest.param("adapt", 0.1, marks=pytest.mark.slow)]
)
def test_statistics_that_adapt_are_waited_for(pretrained: Assign, policy: str, backbone_lr: float) -> None:
    with pytest.raises(Diverged, match="after epoch 1"):
        first_epoch(pretrained(policy=policy, backbone_lr=backbone_lr, **PAIRS))


def test_few_steps_say_too_little(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_collapse, "_MIN_EARLY_STEPS", 5)
    with pytest.raises(Diverged, match="after epoch 1"):
        first_epoch(pretrained(backbone_lr=1.0, **PAIRS))


def test_a_loss_that_is_not_finite_is_told_early(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    look = feature_collapse.FeatureWatch.after_step

    def counted(self: feature_collapse.FeatureWatch, step: int, num_steps: int, loss: object) -> None:
        steps.append(step)
        look(self, step, num_steps, loss * math.nan)  # type: ignore[operator]

    monkeypatch.setattr(feature_collapse.FeatureWatch, "after_step", counted)
    with pytest.raises(Diverged, match="loss must be finite"):
        first_epoch(pretrained(policy="train", backbone_lr=1e-5, **PAIRS))
    assert steps == [1, 2, 3, 4]


def test_a_look_changes_nothing(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"policy": "frozen", "backbone_lr": 1e-4, "head_dropout": 0.5, **PAIRS}
    monkeypatch.setattr(feature_collapse, "_MIN_EARLY_STEPS", 5)
    without = first_epoch(pretrained("without", **more))
    monkeypatch.setattr(feature_collapse, "_MIN_EARLY_STEPS", 4)
    too_high = replace(TASKS["single_label"], guess=lambda *_: (0.0, 0.0))  # any loss is
    monkeypatch.setattr(feature_collapse, "task_of", lambda _: too_high)
    looks = []
    drift = feature_collapse.feature_drift
    monkeypatch.setattr(feature_collapse, "feature_drift", lambda *both: looks.append(1) or drift(*both))
    looked = first_epoch(pretrained("looked", **more))
    assert len(looks) == 2  # after a quarter and after the epoch
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "feature_drift"):
        assert looked.metrics[name] == without.metrics[name], name
