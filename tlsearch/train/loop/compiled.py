"""The forward pass of training through torch.compile, for who asks for it."""

from __future__ import annotations

from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor

from tlsearch.model import StagedModel
from tlsearch.train.loop.evaluation import forward

# A worker sees many backbones, depths and last batches, each a graph of its own: with torch's limit of 8 the ninth
# would run uncompiled for the rest of the search.
_MAX_GRAPHS = 512


class Forward(Protocol):
    """See ``tlsearch.train.loop.evaluation.forward``."""

    def __call__(self, model: StagedModel, rows: Tensor, *, depth: int, from_pixels: bool) -> Tensor: ...


@cache
def compiled_forward() -> Forward:
    """``forward``, compiled; one for the process, so that a later trial of the same shape compiles nothing."""
    torch._dynamo.config.recompile_limit = _MAX_GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = _MAX_GRAPHS
    return cast(Forward, torch.compile(forward, dynamic=False))
