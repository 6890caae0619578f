"""Sources of noise, small enough to train on in milliseconds."""

from __future__ import annotations

import torch

from tlsearch.core.types import TransformSpec
from tlsearch.model import StagedModel
from tlsearch.train import FeatureSource, PixelSource, Source

TRANSFORM = TransformSpec(resize_size=32, crop_size=32, mean=(0.5,) * 3, std=(0.25,) * 3)


def pixels(num: int = 24, seed: int = 5) -> PixelSource:
    """Images of 32 px, channels_last, with the labels 0, 1, 2, 0, ..."""
    generator = torch.Generator().manual_seed(seed)
    rows = (128 + 64 * torch.randn(num, 32, 32, 3, generator=generator)).clamp(0, 255).byte().permute(0, 3, 1, 2)
    return PixelSource(reason="", rows=rows, labels=torch.arange(num) % 3, transform=TRANSFORM)


def features_of(model: StagedModel, source: Source, depth: int) -> FeatureSource:
    """What the prefix of the model makes of all images."""
    assert isinstance(source.rows, torch.Tensor)
    model.eval()
    with torch.no_grad():
        rows = model.forward_prefix(source.ready(source.rows, slice(None), None), depth)
    return FeatureSource(reason="", rows=rows, labels=source.labels)
