"""A key of the feature store, as its tests need one; ``replace`` makes others."""

from __future__ import annotations

from tlsearch.core.types import TransformSpec
from tlsearch.features import FeatureKey

KEY = FeatureKey(
    backbone="tiny",
    weights_digest="w",
    state_digest="s",
    depth=0,
    transform=TransformSpec(resize_size=40, crop_size=32),
    data_digest="d",
    split="train",
)
