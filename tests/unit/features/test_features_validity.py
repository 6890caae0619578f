"""When stored features may be read, and when that pays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tlsearch.core.types import CacheSpec, DataSpec, TrialConfig, TrialSetup
from tlsearch.features import Boundary, measure_boundary, view_of, why_not, why_not_worth
from tlsearch.model import Part, StagedModel

SETUP = TrialSetup(data=DataSpec(source="digits"))
VIEWS = replace(SETUP, cache=CacheSpec(views=3))
DEEP = TrialConfig(backbone="resnet18", unfreeze_depth=2, backbone_lr=1e-4, bn_policy="train")


@pytest.mark.parametrize("depth", range(5))
@pytest.mark.parametrize("policy", [None, "frozen", "train"])
def test_a_frozen_prefix_of_plain_images_may_be_stored(depth: int, policy: str | None) -> None:
    assert why_not(replace(DEEP, unfreeze_depth=depth, bn_policy=policy), SETUP) is None


@pytest.mark.parametrize(
    ("config", "setup", "reason"),
    [
        (replace(DEEP, augmentation="light"), SETUP, "augmentation light"),
        (replace(DEEP, bn_policy="stats"), SETUP, "bn_policy stats"),
        (replace(DEEP, mixup=0.2), SETUP, "mixup: images are mixed"),
        (replace(DEEP, cutmix=1.0), SETUP, "cutmix: images are mixed"),
        (replace(DEEP, unfreeze_depth=5), SETUP, "depth 5"),
        (DEEP, replace(SETUP, cache=CacheSpec(features_gb=0)), "features_gb is 0"),
        (replace(DEEP, augmentation="strong", mixup=0.2), VIEWS, "mixup: images are mixed"),
        (replace(DEEP, augmentation="strong", bn_policy="stats"), VIEWS, "bn_policy stats"),
        (replace(DEEP, augmentation="strong", unfreeze_depth=5), VIEWS, "depth 5"),
    ],
)
def test_each_reason_not_to(config: TrialConfig, setup: TrialSetup, reason: str) -> None:
    found = why_not(config, setup)
    assert found is not None and reason in found


def test_augmentation_does_not_touch_the_validation_images() -> None:
    assert why_not(replace(DEEP, augmentation="light", mixup=0.2), SETUP, "val") is None


def test_fixed_views_of_augmented_images_may_be_stored() -> None:
    light = replace(DEEP, augmentation="light")
    assert why_not(light, VIEWS) is None
    assert [view_of(light, VIEWS, epoch=epoch) for epoch in range(1, 8)] == [1, 2, 3, 1, 2, 3, 1]
    without_store = replace(VIEWS, cache=CacheSpec(views=3, features_gb=0))
    assert view_of(light, without_store, epoch=2) == 2, "the same images without the store"
    assert view_of(replace(light, unfreeze_depth=5), VIEWS, epoch=2, depth=4) == 2, "progressive"


@pytest.mark.parametrize(
    ("config", "setup"),
    [
        (DEEP, VIEWS),
        (replace(DEEP, augmentation="light"), SETUP),
        (replace(DEEP, augmentation="light", cutmix=1.0), VIEWS),
        (replace(DEEP, augmentation="light", bn_policy="stats"), VIEWS),
        (replace(DEEP, augmentation="light", unfreeze_depth=5), VIEWS),
    ],
)
def test_others_have_no_fixed_views(config: TrialConfig, setup: TrialSetup) -> None:
    assert view_of(config, setup, epoch=1) is None


def test_a_progressive_trial_reads_features_before_its_last_phase() -> None:
    everything = replace(DEEP, unfreeze_depth=5)
    assert why_not(everything, SETUP, depth=4) is None
    assert why_not(everything, SETUP, depth=5) is not None


def test_a_map_is_stored_unless_computing_it_is_clearly_cheaper() -> None:
    late = Boundary(shape=(32, 12, 12), num_bytes=18_432, macs=20_000_000)
    early = Boundary(shape=(64, 56, 56), num_bytes=802_816, macs=2_000_000)
    assert why_not_worth(late, "cpu") is None
    reason = why_not_worth(early, "cpu")
    assert reason is not None and "784 KiB" in reason and "2 million MACs" in reason
    assert why_not_worth(late, "cuda") is not None  # a GPU computes it faster than it could be loaded


@pytest.mark.parametrize(("macs", "stored"), [(7, True), (4, True), (3, False), (0, False)])
def test_near_the_border_it_is_read(macs: int, stored: bool) -> None:
    """At eight multiply-adds in the time of a byte both cost the same; below four computing is clearly cheaper."""
    boundary = Boundary(shape=(1, 1, 1), num_bytes=1000, macs=1000 * macs)
    assert (why_not_worth(boundary, "cpu") is None) == stored


def test_the_boundary_is_measured_without_moving_the_model() -> None:
    parts = [Part(nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)) for i in range(5)]
    model = StagedModel([*parts, Part(nn.Linear(4, 2))], backbone="tiny", image_size=32).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    boundary = measure_boundary(model, 3)
    assert boundary == Boundary(shape=(4, 8, 8), num_bytes=4 * 64 * 4, macs=16 * 16 * 4 * 27 + 8 * 8 * 4 * 36)
    assert model.training and model.stage1.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
