"""A trial with the store is the trial without it: curves and predictions, families, depths and policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tlsearch.core.types import TrialAssignment
from tlsearch.model import StagedModel, adapt_statistics
from tlsearch.train import predict_logits
from tlsearch.trial import FineTuning, inputs, setup

Assign = Callable[..., TrialAssignment]
LOSSES = ("train_loss", "val_loss")

# Convolutional networks of torchvision and of timm, with batch norm, and a transformer; the policies of each.
FAMILIES: dict[str, tuple[str | None, ...]] = {
    "mobilenet_v3_small": ("frozen", "train", "adapt"),  # under `stats` no features are ever valid
    "timm/test_efficientnet": ("frozen", "train", "adapt"),
    "timm/test_vit3": (None,),
}
_QUICK = {  # each depth, policy, family and schedule once or more; all of them together are slow
    ("mobilenet_v3_small", 0, "adapt", "at_once"),
    ("mobilenet_v3_small", 3, "train", "at_once"),
    ("mobilenet_v3_small", 2, "train", "progressive"),
    ("timm/test_efficientnet", 1, "frozen", "at_once"),
    ("timm/test_efficientnet", 4, "adapt", "at_once"),
    ("timm/test_vit3", 1, None, "at_once"),
}


@pytest.fixture(autouse=True)
def _lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights whose features tell images apart: batch norm's statistics are those of some images."""
    build = setup.build_original

    def built(*args: Any, **more: Any) -> StagedModel:
        model = build(*args, **more)
        adapt_statistics(model, [torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))])
        return model

    monkeypatch.setattr(setup, "build_original", built)
    monkeypatch.setattr(inputs, "why_not_worth", lambda *_: None)  # of images so small no map is worth it


def cases() -> Iterator[object]:
    for (backbone, policies), depth in product(FAMILIES.items(), range(5)):
        schedules = ("at_once", "progressive") if depth >= 2 else ("at_once",)
        for policy, schedule in product(policies, schedules):
            marks = () if (backbone, depth, policy, schedule) in _QUICK else (pytest.mark.slow,)
            name = f"{backbone.removeprefix('timm/')}-{depth}-{policy}-{schedule}"
            yield pytest.param(backbone, depth, policy, schedule, marks=marks, id=name)


def told(trial: FineTuning, max_epochs: int) -> tuple[list[float], list[Tensor], set[str]]:
    """Losses, and the classes predicted for the validation images, of every epoch; what the epochs read."""
    losses, predicted = [], []
    for _ in range(max_epochs):
        report = trial.step()
        losses += [report.metrics[name] for name in LOSSES]
        parts = trial._parts
        logits = predict_logits(trial.model, parts.val, parts.runtime, depth=parts.trainer.depth)
        predicted.append(logits.argmax(1))
    trial.close()
    return losses, predicted, {report.source for report in trial.reports}


@pytest.mark.parametrize(("backbone", "depth", "policy", "schedule"), list(cases()))
def test_stored_features_change_nothing(
    assign: Assign, backbone: str, depth: int, policy: str | None, schedule: str
) -> None:
    max_epochs = max(2, depth + 1) if schedule == "progressive" else 2
    sides = []
    for stored in (True, False):
        assignment = assign(
            f"{stored}",
            depth=depth,
            policy=policy,
            stored=stored,
            backbone=backbone,
            backbone_lr=1e-4 if depth else None,
            head_lr=3e-3,
            unfreeze_schedule=schedule if depth else None,
            setup={"max_epochs": max_epochs},
        )
        losses, predicted, reads = told(FineTuning(assignment), max_epochs)
        assert reads == {"features" if stored else "pixels"}
        sides.append((losses, torch.cat(predicted)))
    (with_store, found), (without, expected) = sides
    assert with_store == pytest.approx(without, abs=1e-3)
    assert float((found == expected).double().mean()) >= 0.995
    assert max(without) - min(without) > 0.01, "nothing moves here, so that nothing is compared"


def test_another_seed_would_be_noticed(assign: Assign) -> None:
    """What the comparison above is worth: trials that differ by their seed alone are not taken for equal."""
    first, other = (told(FineTuning(assign(f"{seed}", seed=seed, head_lr=3e-3)), 2)[0] for seed in (1, 2))
    assert first != pytest.approx(other, abs=1e-3)
