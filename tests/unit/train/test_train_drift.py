"""Feature drift: 0 for the same geometry, 1 for none in common, and no traces in the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_sources import pixels

from tlsearch.model import StagedModel
from tlsearch.train import feature_drift, open_runtime, probe_features

Build = Callable[..., StagedModel]
RUNTIME = open_runtime("cpu")


def features(seed: int, num: int = 64, size: int = 500) -> torch.Tensor:
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed))


def test_rotation_and_scale_are_no_drift() -> None:
    before = features(0) * torch.logspace(0, 1, 500)
    rotation = torch.linalg.qr(features(1, 500))[0]
    assert feature_drift(before, before) == pytest.approx(0.0, abs=1e-9)
    assert feature_drift(before, 3 * before @ rotation + 7) == pytest.approx(0.0, abs=1e-4)


def test_unrelated_collapsed_and_broken_features_are_all_drift() -> None:
    before = features(0)
    assert feature_drift(before, features(5)) > 0.95, "debiased: few images of many features look alike by chance"
    assert feature_drift(before, torch.ones(64, 500)) == 1.0
    assert feature_drift(before, torch.full((64, 500), float("nan"))) == 1.0


def test_drift_grows_with_the_change() -> None:
    before, other = features(0), features(5)
    drifts = [feature_drift(before, (1 - share) * before + share * other) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert drifts == sorted(drifts) and drifts[0] < 0.05 and drifts[-1] > 0.8


@pytest.mark.parametrize("policy", ["frozen", "train", "stats"])
@pytest.mark.parametrize("depth", [1, 5])
def test_the_probe_leaves_the_model_as_it_was(tiny_model: Build, policy: str, depth: int) -> None:
    model = tiny_model(dropout=0.5)
    model.freeze(depth, policy)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    source = pixels(200)
    found = probe_features(model, source, RUNTIME, depth=depth)
    assert found.shape == (64, 8) and torch.equal(found, probe_features(model, source, RUNTIME, depth=depth))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_new_statistics_alone_are_no_drift(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(5, "train")
    source = pixels(80)
    before = probe_features(model, source, RUNTIME, depth=5)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer += 1.0
    assert feature_drift(before, probe_features(model, source, RUNTIME, depth=5)) == pytest.approx(0.0, abs=1e-9)
