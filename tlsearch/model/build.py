"""From a backbone's name, weights and the number of classes to a model that is ready to fine-tune."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from tlsearch.core.types import ModelSpec
from tlsearch.model.libraries.fast_init import empty_original, forked_seed, meta_original, random_original
from tlsearch.model.libraries.libraries import is_timm, native_size
from tlsearch.model.staging.cut import stage_model
from tlsearch.model.staging.part import Part
from tlsearch.model.staging.staged import StagedModel
from tlsearch.model.staging.stem_channels import adapt_stem
from tlsearch.model.staging.token_features import take_features
from tlsearch.model.weights.matching import at_size
from tlsearch.model.weights.resolve import Weights
from tlsearch.space.libraries.backbones import split_version

_POSITIONS = "encoder.pos_embedding"


def build_model(
    backbone: str,
    *,
    num_classes: int,
    weights: Weights | None,
    image_size: int,
    channels: int = 3,
    seed: int,
    head_dropout: float | None = None,
    features: str | None = None,
) -> StagedModel:
    """Builds the staged model with a newly initialised head: ``build_original`` and ``replace_head``.

    Nothing is frozen yet, and it is in train mode.

    Args:
        num_classes: Outputs of the new head.
        channels: As of ``build_original``.
        seed: Of the head, and of a random backbone. The head is the same for the same seed, whatever the weights.
        head_dropout: Rate of the dropout that opens the head; None keeps the model's own.
        features: As of ``build_original``.

    Raises:
        UserError: As of ``build_original``.
    """
    model = build_original(
        backbone, weights=weights, image_size=image_size, channels=channels, seed=seed, features=features
    )
    replace_head(model, num_classes=num_classes, seed=seed, dropout=head_dropout)
    return model.train()


def build_original(
    backbone: str,
    *,
    weights: Weights | None,
    image_size: int,
    channels: int = 3,
    seed: int,
    features: str | None = None,
) -> StagedModel:
    """Builds the staged model with its original head, which fits only where ``features`` is None.

    Pretrained weights are copied into memory that no random numbers were spent on. The global random generators are
    left as they were.

    Args:
        backbone: A name, with an optional ``@VERSION``.
        weights: From `resolve_weights`. With ``state`` None the backbone is initialised at random from ``seed``.
            None gives the architecture with constants in it, for a checkpoint's whole state to be loaded into.
        image_size: Side of the input images in pixels. Vision transformers are built for it, their position
            embedding interpolated (bicubic, timm's as timm does it) from the weights' own size.
        channels: Of the input images; the stem is adapted from RGB, see ``adapt_stem``.
        seed: Of a random backbone.
        features: What the head sees of a transformer's tokens, see ``take_features``; None is the model's own.

    Raises:
        UserError: The backbone does not exist, no rule cuts it, or it cannot take this size or these channels.
    """
    base, version = split_version(backbone)
    random_backbone = weights is not None and weights.state is None
    if random_backbone:
        original = random_original(base, version, image_size, seed)
    else:
        original = empty_original(base, version, image_size)
    model = stage_model(original, backbone, image_size)
    if weights is not None and weights.state is not None:
        resized = at_size(weights.state, original) if is_timm(base) else _resized(dict(weights.state), model)
        model.load_original_state(resized)
    adapt_stem(model, channels, random_seed=seed if random_backbone else None)
    if weights is not None:
        model.weights_digest = f"{weights.digest}:seed={seed}" if random_backbone else weights.digest
    if features is not None:
        take_features(model, features)
    return model


def untrained_model(spec: ModelSpec) -> StagedModel:
    """A model with constants in it, in train mode: for a checkpoint's whole state to be loaded into, or to be timed.

    Raises:
        UserError: As of ``build_model``.
    """
    return build_model(
        spec.backbone,
        num_classes=spec.num_classes,
        weights=None,
        image_size=_size_of(spec),
        channels=spec.channels,
        seed=0,
        features=spec.features,
    )


def meta_model(spec: ModelSpec) -> StagedModel:
    """The staged model on the meta device: the names, shapes and kinds of its tensors, without their memory.

    Raises:
        UserError: As of ``build_model``.
    """
    backbone, image_size = spec.backbone, _size_of(spec)
    model = stage_model(meta_original(*split_version(backbone), image_size), backbone, image_size)
    adapt_stem(model, spec.channels)
    if spec.features is not None:
        take_features(model, spec.features)
    replace_head(model, num_classes=spec.num_classes, seed=0)
    return model


def _size_of(spec: ModelSpec) -> int:
    return native_size(spec.backbone) if spec.image_size is None else spec.image_size


def _resized(state: dict[str, Tensor], model: StagedModel) -> dict[str, Tensor]:
    """The same state with its position embedding, if it has one, interpolated to the model's size."""
    positions = state.get(_POSITIONS)
    if positions is None or positions.shape == model.original_state()[_POSITIONS].shape:
        return state
    from torchvision.models.vision_transformer import interpolate_embeddings

    patch_size = model.original_state()["conv_proj.weight"].shape[-1]
    with torch.no_grad():
        resized: dict[str, Tensor] = interpolate_embeddings(model.image_size, patch_size, state)
    return resized


CLASSIFIER = "classifier"


class HeadDropout(nn.Dropout):
    """Dropout whose masks are cheap on a CPU: 16 random bits an element instead of one call of the generator.

    torch's own masks take half the time of a step of a linear head there (32 rows of 1,280 features). The share of
    elements that are dropped is the rate to within 1e-5. Never in place: on a slice of a read-only feature map an
    in-place dropout crashes the process.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Of any shape and floating type; the masks are drawn from the global generator."""
        if not self.training or rows.device.type != "cpu":
            return super().forward(rows)
        words = torch.empty(-(-rows.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
        bits = words.view(torch.int16)[: rows.numel()].view(rows.shape)
        num_dropped = round(self.p * 2**16)  # of the values that 16 bits have
        kept = torch.ge(bits, num_dropped - 2**15, out=torch.empty_like(rows))  # 0 or 1: where() would branch
        return rows * kept.mul_(2**16 / (2**16 - num_dropped))


def replace_head(model: StagedModel, *, num_classes: int, seed: int, dropout: float | None = None) -> None:
    """Puts a new linear layer where the model's last classifier layer was.

    It is initialised as torch initialises ``nn.Linear`` (weight and bias uniform in +-1/sqrt(features)), drawn from
    ``seed`` alone. Without a bias where the original has none (MaxViT). A convolution before a pool (SqueezeNet) is
    replaced by pool, flatten and a linear layer: a ReLU on new logits can die, and nothing pooled could be cached.

    Args:
        model: The model to change.
        num_classes: Outputs of the new layer, at least 1.
        seed: Of the initialisation; the global generator is left as it was.
        dropout: Rate of the dropout that opens the head; None keeps the model's own.
    """
    children = list(model.head.children())
    position, last = next(
        (i, m) for i, m in reversed(list(enumerate(children))) if isinstance(m, nn.Linear | nn.Conv2d)
    )
    own_rate = next((m.p for m in children[:position] if isinstance(m, nn.Dropout)), 0.0)
    rate = own_rate if dropout is None else dropout
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if rate > 0:
        modules["dropout"] = HeadDropout(rate)
    if isinstance(last, nn.Conv2d):
        modules["pool"] = nn.AdaptiveAvgPool2d(1)
        modules["flatten"] = nn.Flatten(1)
        num_features = last.in_channels
    else:
        num_features = last.in_features * model.stage4.widening
    device = torch.device("meta") if last.weight.is_meta else None
    with forked_seed(seed):
        modules[CLASSIFIER] = nn.Linear(num_features, num_classes, bias=last.bias is not None, device=device)
    model.head = Part(modules).train(model.training)
