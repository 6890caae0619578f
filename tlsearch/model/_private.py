"""The private names of torch that this package uses, each with its reason; checked with torch 2.14.

No other file uses any. ``tests/unit/test_private_names.py`` fails where one is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm  # the base of all batch norms has no public name
from torch.nn.modules.batchnorm import _NormBase as AnyRunningNorm  # that of instance norms, too
from torch.utils._python_dispatch import TorchDispatchMode  # documented, without a public place
from torch.utils._pytree import tree_leaves  # as the dispatch mode gets its arguments

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode

__all__ = [
    "NAMES",
    "AnyBatchNorm",
    "AnyRunningNorm",
    "DispatchMode",
    "add_to_all",
    "allow_graphs",
    "convolve",
    "count_flops",
    "cpu_computes_bf16",
    "fused_adamw",
    "move_all_towards",
    "tree_leaves",
    "version_of",
]

NAMES = (
    "torch.nn.modules.batchnorm:_BatchNorm",
    "torch.nn.modules.batchnorm:_NormBase",
    "torch.utils._python_dispatch:TorchDispatchMode._should_skip_dynamo",
    "torch.utils._pytree:tree_leaves",
    "torch.nn:Conv2d._conv_forward",
    "torch:Tensor._version",
    "torch.cpu:_is_avx512_bf16_supported",
    "torch.cpu:_is_amx_tile_supported",
    "torch:ops.mkldnn._is_mkldnn_bf16_supported",
    "torch:_foreach_lerp_",
    "torch:_foreach_add_",
    "torch:_fused_adamw_",
    "torch.optim:Optimizer.add_param_group.__wrapped__",
    "torch.utils.flop_counter:_FlopCounterMode.__torch_dispatch__.__wrapped__",
    "torch._dynamo.utils:is_compile_supported",  # whose place ``core.imports.without_compiler`` takes
    "torch._dynamo.config:recompile_limit",
    "torch._dynamo.config:accumulated_recompile_limit",
)


def _never_compiled(method: Any) -> None:
    """Takes from a method of torch what imports the compiler at its first call, 0.8 s of CPU.

    It is there so that a compiled function that calls the method leaves it out, and ours call none. torch (_compile.py)
    looks here for what it would have made.
    """
    plain = method.__wrapped__
    plain.__dynamo_disable = plain


for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    _never_compiled(getattr(torch.optim.Optimizer, name))


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A subclass sees every operation of the body in its ``__torch_dispatch__``; the body is never compiled."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would mark the method so that the compiler leaves it out, which imports the compiler


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


def count_flops() -> FlopCounterMode:
    """Counts the operations of what runs under it."""
    from torch.utils import flop_counter  # a slow import that few trials need

    _never_compiled(flop_counter._FlopCounterMode.__torch_dispatch__)
    return flop_counter.FlopCounterMode(display=False)


def allow_graphs(count: int) -> None:
    """Lets ``torch.compile`` keep this number of graphs of a function; beyond it, it runs uncompiled."""
    torch._dynamo.config.recompile_limit = count
    torch._dynamo.config.accumulated_recompile_limit = count
