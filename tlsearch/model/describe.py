"""What a backbone's stages hold, counted without memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tlsearch.core.types import ModelSpec
from tlsearch.model.adapters.adaptation import Adaptation
from tlsearch.model.build import meta_model
from tlsearch.model.staging.part import batchnorm_layers
from tlsearch.model.staging.staged import MAX_DEPTH, PART_NAMES


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
class ModelDescription:
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

    @property
    def parameters(self) -> int:
        """Number of all its parameters."""
        return sum(stage.parameters for stage in self.stages)


@lru_cache(maxsize=256)
def describe_model(spec: ModelSpec) -> ModelDescription:
    """Builds a model on the meta device and counts.

    Raises:
        UserError: The backbone does not exist, no rule cuts it, or it cannot take this size or these channels.
    """
    model = meta_model(spec)
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
    return ModelDescription(
        name=spec.backbone,
        image_size=model.image_size,
        stages=stages,
        trainable_parameters=trainable,
        state_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
    )


@lru_cache(maxsize=256)
def adapted_parameters(spec: ModelSpec, method: str, rank: int | None) -> Mapping[int, int]:
    """The number of parameters that train, by unfreeze depth 0..5, where the trainable stages are adapted.

    Args:
        method: A value of ``adapt`` that the backbone can take, other than ``none``.
        rank: Of low-rank updates.

    Raises:
        UserError: As of ``describe_model``.
    """
    model = meta_model(spec)
    model.adapt_by(Adaptation(method=method, rank=rank))
    model.freeze(MAX_DEPTH, None)
    counts = [sum(one.numel() for one in part.parameters() if one.requires_grad) for part in model.parts]
    return {depth: sum(counts[MAX_DEPTH - depth :]) for depth in range(MAX_DEPTH + 1)}
