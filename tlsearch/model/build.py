"""From a backbone's name, weights and the number of classes to a model that is ready to fine-tune."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.vision_transformer import interpolate_embeddings

from tlsearch.model.head import replace_head
from tlsearch.model.libraries.fast_init import empty_original, meta_original, random_original
from tlsearch.model.libraries.libraries import is_timm, split_backbone
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.staged import StagedModel
from tlsearch.model.weights.resolve import Weights
from tlsearch.model.weights.timm_states import at_size

_POSITIONS = "encoder.pos_embedding"


def build_model(
    backbone: str,
    *,
    num_classes: int,
    weights: Weights | None,
    image_size: int,
    seed: int,
    head_dropout: float | None = None,
) -> StagedModel:
    """Builds the staged model with a newly initialised head; nothing is frozen yet, and it is in train mode.

    Pretrained weights are copied into memory that no random numbers were spent on. The global random generators are
    left as they were.

    Args:
        backbone: A name, with an optional ``@VERSION``.
        num_classes: Outputs of the new head.
        weights: From `resolve_weights`. With ``state`` None the backbone is initialised at random from ``seed``.
            None gives the architecture with constants in it, for a checkpoint's whole state to be loaded into.
        image_size: Side of the input images in pixels. Vision transformers are built for it, their position
            embedding interpolated (bicubic, timm's as timm does it) from the weights' own size.
        seed: Of the head, and of a random backbone. The head is the same for the same seed, whatever the weights.
        head_dropout: Rate of the dropout that opens the head; None keeps the model's own.

    Raises:
        UserError: There is no such backbone, no rule to cut it, or it cannot take this size.
    """
    base, version = split_backbone(backbone)
    random_backbone = weights is not None and weights.state is None
    if random_backbone:
        original = random_original(base, version, image_size, seed)
    else:
        original = empty_original(base, version, image_size)
    model = stage_model(original, backbone, image_size)
    if weights is not None and weights.state is not None:
        resized = at_size(weights.state, original) if is_timm(base) else _resized(dict(weights.state), model)
        model.load_original_state(resized)
    if weights is not None:
        model.weights_digest = f"{weights.digest}:seed={seed}" if random_backbone else weights.digest
    replace_head(model, num_classes=num_classes, seed=seed, dropout=head_dropout)
    return model.train()


def meta_model(backbone: str, *, num_classes: int, image_size: int) -> StagedModel:
    """The staged model on the meta device: the names, shapes and kinds of its tensors, without their memory.

    Raises:
        UserError: As of ``build_model``.
    """
    model = stage_model(meta_original(*split_backbone(backbone), image_size), backbone, image_size)
    replace_head(model, num_classes=num_classes, seed=0)
    return model


def _resized(state: dict[str, Tensor], model: StagedModel) -> dict[str, Tensor]:
    """The same state with its position embedding, if it has one, interpolated to the model's size."""
    positions = state.get(_POSITIONS)
    if positions is None or positions.shape == model.original_state()[_POSITIONS].shape:
        return state
    patch_size = model.original_state()["conv_proj.weight"].shape[-1]
    with torch.no_grad():
        resized: dict[str, Tensor] = interpolate_embeddings(model.image_size, patch_size, state)
    return resized
