"""A trained model as timm's own model: what timm builds it with, and its tensors under timm's names.

A backbone of timm is its own counterpart. Some of torchvision's are the same network as one of timm's with other names
for its tensors: there the n-th tensor of a size is the n-th tensor of that size. Logits on random images decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlsearch.core.errors import UserError
from tlsearch.model.libraries.fast_init import ConstantFill, forked_seed
from tlsearch.model.libraries.libraries import built_by_timm, import_timm, is_timm, timm_name, timm_options
from tlsearch.model.staging.staged import StagedModel
from tlsearch.space.libraries.backbones import split_version

TOLERANCE = 1e-3  # of the differences between the logits of random images, which a model may hardly tell apart
_ROUNDING = 1e-5  # of the largest logit
_PROBES = 4
_CLASSIFIER = "head.classifier."
_KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_EPS = {"bn_eps": 1e-3}  # torchvision's batch norm where timm's default is 1e-5

# timm's name of torchvision's backbones whose names differ, or that take options; others have one name in both.
_COUNTERPARTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "mobilenet_v2": ("mobilenetv2_100", {}),
    "mobilenet_v3_large": ("mobilenetv3_large_100", _EPS),
    "mobilenet_v3_small": ("mobilenetv3_small_100", _EPS),
    "mnasnet0_5": ("mnasnet_050", {}),
    "mnasnet0_75": ("mnasnet_075", {}),
    "mnasnet1_0": ("mnasnet_100", {}),
    "efficientnet_b5": ("efficientnet_b5", _EPS),
    "efficientnet_b6": ("efficientnet_b6", _EPS),
    "efficientnet_b7": ("efficientnet_b7", _EPS),
    "efficientnet_v2_s": ("efficientnetv2_s", _EPS),
    "efficientnet_v2_m": ("efficientnetv2_m", _EPS),
    "efficientnet_v2_l": ("efficientnetv2_l", _EPS),
    "swin_t": ("swin_tiny_patch4_window7_224", {}),
    "swin_s": ("swin_small_patch4_window7_224", {}),
    "swin_b": ("swin_base_patch4_window7_224", {}),
    "vit_b_16": ("vit_base_patch16_224", {}),
    "vit_b_32": ("vit_base_patch32_224", {}),
    "vit_l_16": ("vit_large_patch16_224", {}),
    "vit_l_32": ("vit_large_patch32_224", {}),
    "vit_h_14": ("vit_huge_patch14_224", {}),
}


@dataclass(frozen=True, kw_only=True)
class TimmCounterpart:
    """A trained model in timm's form.

    Attributes:
        architecture: timm's name, without a tag.
        tag: Of timm's pretrained weights that it began with; empty where none was named.
        options: What ``timm.create_model`` takes beside the name and the number of classes.
        model: timm's model with the trained tensors, in eval mode on the CPU.
    """

    architecture: str
    tag: str
    options: Mapping[str, Any]
    model: nn.Module


def timm_counterpart(model: StagedModel) -> TimmCounterpart:
    """timm's model that computes what a trained model computes.

    Args:
        model: In eval mode, with a linear layer as its classifier.

    Raises:
        UserError: timm is missing, or none of its models gives the same logits.
    """
    base, version = split_version(model.backbone)
    name, more = (base, {}) if is_timm(base) else _COUNTERPARTS.get(base, (base, {}))
    name = timm_name(name, None)
    if not import_timm().is_model(name):
        raise UserError(f"timm has no model that is torchvision's {base}")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    sized = timm_options(f"timm/{name}", version if is_timm(base) else None, model.image_size)
    options = {**{key: value for key, value in sized.items() if key != "num_classes"}, **more}
    if model.channels != 3:
        options["in_chans"] = model.channels
    num_classes = len(state[f"{_CLASSIFIER}weight"])
    with forked_seed(0), ConstantFill():
        built = built_by_timm(name, model.image_size, num_classes=num_classes, **options)
    named = {theirs: state[ours] for theirs, ours in model.origin.items()}
    classifier = {key: state[_CLASSIFIER + key] for key in ("weight", "bias") if _CLASSIFIER + key in state}
    target = built.state_dict()
    tensors = _by_name(named, classifier, target) or _by_size({**named, **classifier}, target)
    if tensors is None:
        raise UserError(f"the tensors of {model.backbone} are not those of timm's {name}")
    built.load_state_dict(tensors)
    _compare(model, built.eval(), name)
    return TimmCounterpart(
        architecture=name, tag=(version or "") if is_timm(base) else "", options=options, model=built
    )


def _by_name(
    named: Mapping[str, Tensor], classifier: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The tensors where both libraries use the same names; what the backbone lacks is timm's classifier."""
    lacking = [name for name in target if name not in named]
    found = {**named, **dict(zip(lacking, classifier.values(), strict=False))}
    same = len(lacking) == len(classifier) and found.keys() == target.keys()
    if not same or any(found[name].numel() != target[name].numel() for name in target):
        return None
    return {name: found[name].reshape(target[name].shape) for name in target}  # a classifier may be a convolution


def _by_size(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The n-th tensor of a kind and size for the n-th: a linear layer and a 1 x 1 convolution have one size.

    Integer tensors that timm works out itself, as Swin's indices of positions, are left out.
    """
    ours, theirs = _groups(state), _groups(target)
    extra = [key for key in ours if key not in theirs]
    if any(state[name].is_floating_point() for key in extra for name in ours[key]):
        return None
    if any(len(ours.get(key, ())) != len(names) for key, names in theirs.items()):
        return None
    pairs = [pair for key, names in theirs.items() for pair in zip(names, ours[key], strict=True)]
    return {name: state[own].reshape(target[name].shape) for name, own in pairs}


def _groups(state: Mapping[str, Tensor]) -> Mapping[tuple[str, int, int], list[str]]:
    """The names of the tensors of one kind, first dimension and number of elements, in the state's order."""
    found: dict[tuple[str, int, int], list[str]] = defaultdict(list)
    for name, tensor in state.items():
        last = name.rpartition(".")[2]
        kind = next((one for one in _KINDS if last.endswith(one)), "")
        rows = tensor.shape[0] if kind and tensor.ndim else 0
        found[kind, rows, tensor.numel()].append(name)
    return found


def _compare(model: StagedModel, built: nn.Module, name: str) -> None:
    shape = (_PROBES, model.channels, model.image_size, model.image_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = model(images), built(images)
    spread = float((expected - expected.mean(0)).abs().max())
    difference = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE * spread + _ROUNDING * float(expected.abs().max()):
        raise UserError(
            f"timm's {name} must give the logits of {model.backbone} to {TOLERANCE:g} of their spread over random "
            f"images, {spread:.3g}; they differ by {difference:.2g}"
        )
