"""Batch norm that stands still, folded into the convolution before it.

In eval mode a batch-norm layer is one multiplication and one addition for each channel. As a layer of its own it reads
and writes every activation once more, and again on the way back; folded into the convolution's weight and bias it costs
as much as the weights are large. On a CPU that is a third to a half of the forward pass of a MobileNet. Jacob et al.
(arXiv 1712.05877, section 3.2) fold so for inference; here the fold is part of the graph, so that a convolution under a
frozen batch norm trains through it: the gradients are the same but for rounding.
"""

from __future__ import annotations

from collections import Counter
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tlsearch.model._private import DispatchMode, convolve, tree_leaves, version_of
from tlsearch.model.staging.part import Part
from tlsearch.model.staging.staged import StagedModel

_NORM = "_folded_norm"  # attributes of a convolution, beside its modules, so that no state has them
_KEPT = "_folded_kept"
_SAMPLES = 2
_TOLERANCE = 1e-3  # of the largest logit

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]

_known: dict[str, tuple[tuple[str, str], ...]] = {}  # names of the pairs by backbone, whose structure decides


def fold_batchnorm(model: StagedModel) -> int:
    """Lets each convolution whose output goes to a batch norm alone take over its work, whenever that is in eval mode.

    Names, parameters, buffers and modes stay as they are, and a batch norm in train mode works as ever: folding follows
    the mode from one pass to the next. What a copy of the model does is its own. The pairs of a backbone are looked for
    once per process, by two passes.

    Args:
        model: Changed in place, unless its outputs would differ.

    Returns:
        How many pairs are folded.
    """
    if model.backbone not in _known:
        names = {module: name for name, module in model.named_modules()}
        _known[model.backbone] = tuple((names[convolution], names[norm]) for convolution, norm in _sound_pairs(model))
    for convolution, norm in _known[model.backbone]:
        _fold(cast(nn.Conv2d, model.get_submodule(convolution)), cast(nn.BatchNorm2d, model.get_submodule(norm)))
    return len(_known[model.backbone])


@torch.no_grad()
def _sound_pairs(model: StagedModel) -> list[Pair]:
    """The model's pairs; none where the outputs with all of them folded differ. The model is left as it was."""
    if not any(_is_foldable(layer) for layer in model.modules()):
        return []
    chance = torch.Generator().manual_seed(0)
    images = torch.randn(_SAMPLES, model.channels, model.image_size, model.image_size, generator=chance)
    images = images.to(next(model.parameters()).device)
    was_training = model.training
    model.eval()
    pairs, before = _pairs(model, images)
    for convolution, norm in pairs:
        _fold(convolution, norm)
    after = model(images)
    for convolution, norm in pairs:
        _unfold(convolution, norm)
    model.train(was_training)
    return pairs if torch.allclose(before, after, rtol=0, atol=_TOLERANCE * float(before.abs().max())) else []


def _pairs(model: StagedModel, images: Tensor) -> tuple[list[Pair], Tensor]:
    """Convolutions whose output is used by one operation, a batch norm of the same part, each once; and the logits."""
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # holds the tensors, or an id could be another's
    found: list[tuple[Pair, int]] = []
    calls: Counter[nn.Module] = Counter()
    uses = _Uses()

    def called(layer: nn.Conv2d, _: Any, output: Tensor) -> None:
        calls[layer] += 1
        outputs[id(output)] = (layer, output)
        uses.counts[id(output)] = 0

    def given(layer: nn.BatchNorm2d, inputs: tuple[Any, ...]) -> None:
        calls[layer] += 1
        if id(inputs[0]) in outputs:
            found.append(((outputs[id(inputs[0])][0], layer), id(inputs[0])))

    handles: list[RemovableHandle] = []
    homes: dict[nn.Module, Part] = {}
    for part in model.parts:
        for layer in part.modules():
            homes[layer] = part
            if type(layer) is nn.Conv2d:
                handles.append(layer.register_forward_hook(called))
            elif _is_foldable(layer):
                handles.append(layer.register_forward_pre_hook(given))
    try:
        with uses:
            logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [
        pair
        for pair, output in found
        if uses.counts[output] == 1 and calls[pair[0]] == calls[pair[1]] == 1 and homes[pair[0]] is homes[pair[1]]
    ], logits


class _Uses(DispatchMode):
    """Counts by a tensor's id the operations that are given it: what hooks of modules do not see."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts.update({id(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)})
        return func(*args, **(kwargs or {}))


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
    return convolve(convolution, images, weight, bias)


def _pass_on(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """Batch norm in train mode; else what it does beside: timm's layers end in dropout and an activation."""
    if norm.training:
        return type(norm).forward(norm, images)
    if type(norm) is nn.BatchNorm2d:
        return images
    beside: Any = norm
    return cast(Tensor, beside.act(beside.drop(images)))


def _combined(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of both. What stands still of them is kept between passes, in the dtype that they compute in."""
    fixed = [one for one in (convolution.bias, *_tensors(norm)) if one is not None]
    if any(one.requires_grad for one in fixed):
        factor, bias = _factors(convolution, norm)
        return convolution.weight * factor, bias
    device_type = convolution.weight.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else torch.float32
    trains = convolution.weight.requires_grad
    state = (dtype, trains, *((id(one), version_of(one)) for one in (convolution.weight, *fixed)[trains:]))
    kept = convolution.__dict__.get(_KEPT)
    if kept is None or kept[0] != state:
        # Training needs what an evaluation has kept, and autograd takes no tensor of the inference mode.
        with torch.inference_mode(False), torch.no_grad():
            factor, bias = _factors(convolution, norm)
            first = factor if trains else (convolution.weight * factor).to(dtype)
        kept = convolution.__dict__[_KEPT] = (state, (first, bias.to(dtype)))
    first, bias = kept[1]
    return (convolution.weight * first if trains else first), bias


def _tensors(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale, shift, running mean and running variance."""
    assert norm.running_mean is not None and norm.running_var is not None, "only such norms are folded"
    return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _factors(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What the convolution's weight is multiplied by, (C, 1, 1, 1), and the bias of both."""
    scale, shift, mean, variance = _tensors(norm)
    factor = scale * torch.rsqrt(variance + norm.eps)
    bias = shift - mean * factor
    if convolution.bias is not None:
        bias = bias + convolution.bias * factor
    return factor.reshape(-1, 1, 1, 1), bias
