"""Batch norm that stands still, folded into the convolution before it.

In eval mode a batch-norm layer is one multiplication and one addition for each channel. As a layer of its own it reads
and writes every activation once more, and again on the way back; folded into the convolution's weight and bias it costs
as much as the weights are large. On a CPU that is a third to a half of the forward pass of a MobileNet. Jacob et al.
(arXiv 1712.05877, section 3.2) fold so for inference; here the fold is part of the graph, so that a convolution under a
frozen batch norm trains through it: the gradients are the same but for rounding.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from tlsearch.model.staged import Part, StagedModel

_NORM = "_folded_norm"  # attributes of a convolution, beside its modules, so that no state has them
_KEPT = "_folded_kept"
_SAMPLES = 2
_TOLERANCE = 1e-3  # of the largest logit


def fold_batchnorm(model: StagedModel) -> int:
    """Lets each convolution whose output goes to a batch norm alone take over its work, whenever that is in eval mode.

    Names, parameters, buffers and modes stay as they are, and a batch norm in train mode works as ever: folding follows
    the mode from one pass to the next. What a copy of the model does is its own.

    Args:
        model: Changed in place, unless its outputs would differ.

    Returns:
        How many pairs are folded.
    """
    if not any(_is_foldable(layer) for layer in model.modules()):
        return 0
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(_SAMPLES, 3, model.image_size, model.image_size, generator=chance)
    images = images.to(next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        pairs, before = _pairs(model, images)
        for convolution, norm in pairs:
            _fold(convolution, norm)
        after = model(images)
    if not torch.allclose(before, after, rtol=0, atol=_TOLERANCE * float(before.abs().max())):
        for convolution, norm in pairs:
            _unfold(convolution, norm)
        pairs = []
    model.train(was_training)
    return len(pairs)


def _pairs(model: StagedModel, images: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """Convolutions and the batch norms of the same part that are given their very output, each once; and the logits."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holds the tensors, or an id could be another's
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: dict[nn.Module, int] = {}

    def called(layer: nn.Conv2d, _: Any, output: Tensor) -> None:
        calls[layer] = calls.get(layer, 0) + 1
        outputs[id(output)] = (layer, output)

    def given(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[layer] = calls.get(layer, 0) + 1
        if id(inputs[0]) in outputs:
            assert isinstance(layer, nn.BatchNorm2d), "others have no hook"
            found.append((outputs[id(inputs[0])][0], layer))

    handles = []
    homes: dict[nn.Module, Part] = {}
    for part in model.parts:
        for layer in part.modules():
            homes[layer] = part
            if type(layer) is nn.Conv2d:
                handles.append(layer.register_forward_hook(called))
            elif _is_foldable(layer):
                handles.append(layer.register_forward_pre_hook(given))
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [
        (convolution, norm)
        for convolution, norm in found
        if homes[convolution] is homes[norm] and calls[convolution] == calls[norm] == 1
    ], logits


def _is_foldable(layer: nn.Module) -> bool:
    """Torch's own layer, and timm's that goes on with dropout and an activation."""
    known = type(layer) is nn.BatchNorm2d or (hasattr(layer, "act") and hasattr(layer, "drop"))
    return known and isinstance(layer, nn.BatchNorm2d) and layer.affine and layer.track_running_stats


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    convolution.__dict__[_NORM] = norm  # not by setattr: it would be a submodule, and in the state twice
    convolution.__dict__["forward"] = MethodType(_convolve, convolution)  # a bound method is copied with its module
    norm.__dict__["forward"] = MethodType(_pass_on, norm)


def _unfold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    for name in (_NORM, _KEPT, "forward"):
        convolution.__dict__.pop(name, None)
    norm.__dict__.pop("forward", None)


def _convolve(convolution: nn.Conv2d, images: Tensor) -> Tensor:
    """The convolution; with its batch norm's work where that is in eval mode."""
    norm: nn.BatchNorm2d = convolution.__dict__[_NORM]
    if norm.training:
        convolution.__dict__.pop(_KEPT, None)  # the pass moves the statistics, which no version counter notes
        weight, bias = convolution.weight, convolution.bias
    else:
        weight, bias = _combined(convolution, norm)
    return cast(Tensor, convolution._conv_forward(images, weight, bias))


def _pass_on(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """Batch norm in train mode; else what it does beside: timm's layers end in dropout and an activation."""
    if norm.training:
        return type(norm).forward(norm, images)
    if type(norm) is nn.BatchNorm2d:
        return images
    beside: Any = norm
    return cast(Tensor, beside.act(beside.drop(images)))


def _combined(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of both; kept between the passes that move neither."""
    tensors = (convolution.weight, convolution.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if torch.is_grad_enabled() or convolution.weight.requires_grad:
        return _product(convolution, norm)
    state = tuple((id(one), one._version) for one in tensors if one is not None)
    kept = convolution.__dict__.get(_KEPT)
    if kept is None or kept[0] != state:
        kept = convolution.__dict__[_KEPT] = (state, _product(convolution, norm))
    return cast(tuple[Tensor, Tensor], kept[1])


def _product(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None, "only such norms are folded"
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if convolution.bias is not None:
        bias = bias + convolution.bias * scale
    return convolution.weight * scale.reshape(-1, 1, 1, 1), bias
