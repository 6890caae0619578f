"""The optimizer's parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tlsearch.model.adapters.adapters import ScaleShift
from tlsearch.model.adapters.targets import is_norm
from tlsearch.model.staging.staged import PART_NAMES, StagedModel

# How often layer_decay is applied to backbone_lr in each part of the backbone.
_DECAY_STEPS: Mapping[str, int] = {"stage4": 0, "stage3": 1, "stage2": 2, "stage1": 3, "stem": 4}


def parameter_groups(
    model: StagedModel,
    *,
    head_lr: float,
    backbone_lr: float | None,
    weight_decay: float,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: each trainable parameter once, nothing else, head first, then from stage4 down.

    Biases (bias tables of attention included), parameters of normalisation layers and the scales and shifts of adapters
    are not decayed; a part that has both kinds makes two groups, ``stage4`` and ``stage4/no_decay``.

    Args:
        model: After `StagedModel.freeze`.
        head_lr: Learning rate of the head.
        backbone_lr: Of stage4, times ``layer_decay`` for each part further down; None where only the head trains.
        weight_decay: Of everything that is decayed.
        layer_decay: In (0, 1]; 1 is the same learning rate everywhere.

    Returns:
        Dicts with ``name``, ``params``, ``lr``, ``weight_decay``; empty groups are left out.

    Raises:
        ValueError: A stage is trainable and ``backbone_lr`` is missing.
    """
    groups: list[dict[str, Any]] = []
    for part_name, part in reversed(list(zip(PART_NAMES, model.parts, strict=True))):
        trainable = [parameter for parameter in part.parameters() if parameter.requires_grad]
        if not trainable:
            continue
        undecayed = _undecayed(part)
        if part_name == "head":
            lr = head_lr
        elif backbone_lr is None:
            raise ValueError(f"{part_name} is trainable and has no backbone_lr")
        else:
            lr = backbone_lr * layer_decay ** _DECAY_STEPS[part_name]
        split = {
            part_name: [p for p in trainable if id(p) not in undecayed],
            f"{part_name}/no_decay": [p for p in trainable if id(p) in undecayed],
        }
        for name, parameters in split.items():
            if parameters:
                decay = 0.0 if name.endswith("/no_decay") else weight_decay
                groups.append({"name": name, "params": parameters, "lr": lr, "weight_decay": decay})
    return groups


def _undecayed(part: nn.Module) -> set[int]:
    """Identities of biases, of norm parameters, and of adapters' scales and shifts: decay would pull those to 0."""
    found = set()
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if "bias" in name or is_norm(module) or isinstance(module, ScaleShift):
                found.add(id(parameter))
    return found
