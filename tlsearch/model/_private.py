"""The private names of torch that this package uses, each with its reason; checked with torch 2.14.

No other file uses any. ``tests/unit/test_private_names.py`` fails where one is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm  # the base of all batch norms has no public name
from torch.nn.modules.batchnorm import _NormBase as AnyRunningNorm  # that of instance norms, too
from torch.utils._python_dispatch import TorchDispatchMode  # documented, without a public place
from torch.utils._pytree import tree_leaves  # as the dispatch mode gets its arguments

__all__ = [
    "NAMES",
    "AnyBatchNorm",
    "AnyRunningNorm",
    "TorchDispatchMode",
    "add_to_all",
    "allow_graphs",
    "convolve",
    "cpu_computes_bf16",
    "fused_adamw",
    "move_all_towards",
    "tree_leaves",
    "version_of",
]

NAMES = (
    "torch.nn.modules.batchnorm:_BatchNorm",
    "torch.nn.modules.batchnorm:_NormBase",
    "torch.utils._python_dispatch:TorchDispatchMode",
    "torch.utils._pytree:tree_leaves",
    "torch.nn:Conv2d._conv_forward",
    "torch:Tensor._version",
    "torch.cpu:_is_avx512_bf16_supported",
    "torch.cpu:_is_amx_tile_supported",
    "torch:ops.mkldnn._is_mkldnn_bf16_supported",
    "torch:_foreach_lerp_",
    "torch:_foreach_add_",
    "torch:_fused_adamw_",
    "torch._dynamo.config:recompile_limit",
    "torch._dynamo.config:accumulated_recompile_limit",
)


def convolve(convolution: nn.Conv2d, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution with other weights: the public function does not know the layer's padding mode."""
    return cast(Tensor, convolution._conv_forward(images, weight, bias))


def version_of(tensor: Tensor) -> int:
    """Counts the changes of a tensor in place."""
    return tensor._version


def cpu_computes_bf16(x86: bool) -> bool:
    """Whether this CPU has instructions for bf16."""
    if x86:
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def move_all_towards(tensors: Sequence[Tensor], ends: Sequence[Tensor], fraction: float) -> None:
    """Moves each tensor by a fraction of its distance to its end: one kernel for all of them."""
    torch._foreach_lerp_(list(tensors), list(ends), fraction)


def add_to_all(tensors: list[Tensor], number: float) -> None:
    """Adds a number to each tensor."""
    torch._foreach_add_(tensors, number)


def fused_adamw(*tensors: list[Tensor], **settings: Any) -> None:
    """The kernel of ``torch.optim.AdamW(fused=True)``, without the optimizer's work around it."""
    torch._fused_adamw_(*tensors, **settings)


def allow_graphs(count: int) -> None:
    """Lets ``torch.compile`` keep this number of graphs of a function; beyond it, it runs uncompiled."""
    torch._dynamo.config.recompile_limit = count
    torch._dynamo.config.accumulated_recompile_limit = count
