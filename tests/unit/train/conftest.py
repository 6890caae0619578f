"""A staged model small enough to train in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tlsearch.model import Part, StagedModel

NUM_CLASSES = 3


def _stage(inputs: int, outputs: int) -> Part:
    return Part(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


@pytest.fixture
def tiny_model() -> Callable[..., StagedModel]:
    """Builds a model for 32 px images: five convolutions with batch norm, dropout, one linear layer."""

    def build(dropout: float = 0.0, seed: int = 0, batch_norm: bool = True) -> StagedModel:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            stages = [_stage(3, 4), _stage(4, 6), _stage(6, 6), _stage(6, 8)]
            last = Part(*_stage(8, 8), nn.Flatten())
            model = StagedModel(
                [*stages, last, Part(nn.Dropout(dropout), nn.Linear(8, NUM_CLASSES))], backbone="tiny", image_size=32
            )
        if not batch_norm:
            for module in model.modules():
                for name, child in module.named_children():
                    if isinstance(child, nn.BatchNorm2d):
                        setattr(module, name, nn.Identity())
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    return build
