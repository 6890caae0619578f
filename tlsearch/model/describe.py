"""What a backbone's stages hold, counted without memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlsearch.model.build import replace_head
from tlsearch.model.libraries.fast_init import MetaAllocation, meta_original
from tlsearch.model.libraries.libraries import native_size, split_backbone
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.staged import MAX_DEPTH, PART_NAMES, batchnorm_layers


@dataclass(frozen=True, kw_only=True)
class StageDescription:
    """One part of a backbone.

    Attributes:
        name: stem, stage1 .. stage4 or head.
        parameters: Number of its parameters.
        batchnorm_layers: Number of its batch-norm layers.
        modules: Its modules' names, in the order of the forward pass.
    """

    name: str
    parameters: int
    batchnorm_layers: int
    modules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BackboneDescription:
    """A backbone with its new head.

    Attributes:
        trainable_parameters: By unfreeze depth 0..5, with bn_policy ``train``.
        state_bytes: Size of all its tensors, which is that of a checkpoint.
    """

    name: str
    image_size: int
    stages: tuple[StageDescription, ...]
    trainable_parameters: Mapping[int, int]
    state_bytes: int


def describe_backbone(backbone: str, num_classes: int, image_size: int | None = None) -> BackboneDescription:
    """Builds a backbone on the meta device and counts.

    Args:
        backbone: A name, with an optional ``@VERSION``.
        num_classes: Outputs of the new head.
        image_size: Side of the input images in pixels; None is the default weights' own.

    Raises:
        UserError: The backbone does not exist, no rule cuts it, or it cannot take this size.
    """
    size = native_size(backbone) if image_size is None else image_size
    base, version = split_backbone(backbone)
    model = stage_model(meta_original(base, version, size), backbone, size)
    with MetaAllocation():
        replace_head(model, num_classes=num_classes, seed=0)
    stages = tuple(
        StageDescription(
            name=name,
            parameters=sum(parameter.numel() for parameter in part.parameters()),
            batchnorm_layers=sum(1 for _ in batchnorm_layers(part)),
            modules=tuple(child for child, _ in part.named_children()),
        )
        for name, part in zip(PART_NAMES, model.parts, strict=True)
    )
    trainable = {
        depth: sum(stage.parameters for stage in stages[MAX_DEPTH - depth :]) for depth in range(MAX_DEPTH + 1)
    }
    return BackboneDescription(
        name=backbone,
        image_size=size,
        stages=stages,
        trainable_parameters=trainable,
        state_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
    )
