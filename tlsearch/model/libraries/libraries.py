"""The two libraries that backbones come from: names, versions, and plain architectures.

A backbone is written ``resnet50`` (torchvision) or ``timm/tf_efficientnet_lite0``, with an optional version of its
weights after an ``@``: ``resnet50@IMAGENET1K_V1``, ``timm/tf_efficientnet_lite0@in1k``. timm's own way of naming a
version, ``timm/tf_efficientnet_lite0.in1k``, means the same.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, get_args

from torch import nn

from tlsearch.core.errors import UserError
from tlsearch.core.imports import without_compiler
from tlsearch.core.types import CropMode, TransformSpec
from tlsearch.space.libraries.backbones import TIMM, split_version

with without_compiler():
    import torchvision.models


@lru_cache(maxsize=256)
def default_transform(backbone: str) -> TransformSpec:
    """The evaluation transform of a backbone's weights at their own size; DEFAULT where no version is named.

    Raises:
        UserError: The backbone or version does not exist, or its transform is of another kind.
    """
    base, version = split_version(backbone)
    if is_timm(base):
        return _of_timm(base, timm_config(base, version))
    preset = torchvision_weights(base, version).transforms()
    return TransformSpec(
        resize_size=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def native_size(backbone: str) -> int:
    """Side in pixels of the images that a backbone's weights are evaluated on.

    Raises:
        UserError: The backbone or version does not exist.
    """
    base, version = split_version(backbone)
    if is_timm(base):
        return int(timm_config(base, version).input_size[-1])
    return default_transform(backbone).crop_size


def _of_timm(base: str, config: Any) -> TransformSpec:
    """timm's evaluation: the shorter side, or with ``squash`` both, to floor(size / crop_pct), then a centre crop."""
    _, height, width = config.input_size
    crop_mode: Any = config.crop_mode or "center"
    if crop_mode not in get_args(CropMode) or height != width:
        raise UserError(
            f"{base} is evaluated with crop_mode {crop_mode!r} on {height} x {width} px;"
            f" only squares of crop_mode {' or '.join(get_args(CropMode))} are supported, so name another's `transform`"
        )
    return TransformSpec(
        resize_size=math.floor(height / (config.crop_pct or 0.875)),
        crop_size=height,
        interpolation=config.interpolation or "bicubic",
        mean=tuple(config.mean),
        std=tuple(config.std),
        crop_mode=crop_mode,
    )


_INCEPTIONS = ("googlenet", "inception_v3")
# timm's modules whose models are built for an image size, with what makes them take that size alone: sizes that
# are worked out again in every pass are a loss of time where all images have one size.
_TIMM_SIZED: Mapping[str, Mapping[str, Any]] = {
    "beit": {},
    "deit": {"dynamic_img_size": False},
    "eva": {"dynamic_img_size": False},
    "swin_transformer": {},
    "swin_transformer_v2": {},
    "vision_transformer": {"dynamic_img_size": False},
    "vision_transformer_hybrid": {"dynamic_img_size": False},
}


def is_timm(base: str) -> bool:
    """Whether a backbone is one of timm's."""
    return base.startswith(TIMM)


@lru_cache(maxsize=1)
def torchvision_names() -> tuple[str, ...]:
    """The names of torchvision's classification models, in alphabetical order."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def import_timm() -> Any:
    """Imports timm, which is an optional extra.

    Raises:
        UserError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(
            "backbones named timm/... need the package timm, which is not installed: pip install 'tlsearch[timm]'"
        ) from error
    return timm


def torchvision_weights(base: str, version: str | None) -> Any:
    """The member of the model's weights enum for ``version``, or its DEFAULT.

    Raises:
        UserError: The model, or this version of its weights, does not exist.
    """
    if base not in torchvision_names():
        raise UserError(f"unknown backbone {base!r}{nearest(base, torchvision_names())}")
    enum = torchvision.models.get_model_weights(base)
    if version is None or version == "DEFAULT":
        return enum.DEFAULT
    names = [member.name for member in enum]
    if version not in names:
        raise UserError(f"{base} has no weights {version!r}; it has {', '.join(names)}")
    return enum[version]


def timm_name(base: str, version: str | None) -> str:
    """timm's own name of a backbone: ``timm/vit@tag`` is ``vit.tag``."""
    name = base.removeprefix(TIMM)
    return f"{name}.{version}" if version else name


def timm_config(base: str, version: str | None) -> Any:
    """timm's ``PretrainedCfg`` of a backbone's weights.

    Raises:
        UserError: timm is missing, or has no such model or tag.
    """
    timm = import_timm()
    name = timm_name(base, version)
    if not timm.is_model(name):
        raise UserError(f"unknown backbone {base!r}{nearest(name, timm.list_models(), prefix=TIMM)}")
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
        raise UserError(f"{base} has no weights {version or name!r}; it has {', '.join(tags) or 'none'}") from error
    if config is None:
        raise UserError(f"timm knows no configuration for {base}, so its preprocessing is not known either")
    return config


def create_original(base: str, version: str | None, image_size: int, *, random_init: bool) -> nn.Module:
    """The library's own model with its own classifier, without auxiliary heads, as its constructor leaves it.

    Args:
        base: The backbone without a version.
        version: Version of the weights; timm's architectures follow it.
        image_size: Side of the input in pixels; only models that are built for one size use it.
        random_init: Whether the library's optional slow initialisations are wanted.

    Raises:
        UserError: The model does not exist, or cannot be built for this size.
    """
    if is_timm(base):
        return _create_timm(base, version, image_size)
    options = torchvision_options(base, image_size)
    if base in _INCEPTIONS:
        options["init_weights"] = random_init
    model: nn.Module = torchvision.models.get_model(base, weights=None, **options)
    return model


def torchvision_options(base: str, image_size: int) -> dict[str, Any]:
    """The options that torchvision's constructor of a backbone takes for an image size.

    Raises:
        UserError: The model does not exist, or cannot be built for this size.
    """
    if base not in torchvision_names():
        raise UserError(f"unknown backbone {base!r}{nearest(base, torchvision_names())}")
    if base.startswith("vit_"):
        patch = int(base.rpartition("_")[2])
        if image_size % patch:
            raise UserError(f"{base} takes image sizes that are multiples of {patch}; {image_size} is not")
        return {"image_size": image_size}
    if base.startswith("maxvit_"):
        if image_size % 224:
            raise UserError(f"{base} takes image sizes that are multiples of 224; {image_size} is not")
        return {"input_size": (image_size, image_size)}
    if base in _INCEPTIONS:
        # transform_input is True only through the weights enum: without it the same weights see wrong inputs.
        return {"aux_logits": False, "transform_input": True}
    return {}


def timm_options(base: str, version: str | None, image_size: int) -> dict[str, Any]:
    """The options that ``timm.create_model`` takes for a backbone and an image size.

    Raises:
        UserError: timm is missing, has no such model, or the model takes another size only.
    """
    config = timm_config(base, version)
    options = timm_size_options(timm_name(base, version))
    native = config.input_size[-1]
    if options is None and config.fixed_input_size and image_size != native:
        raise UserError(f"{base} takes images of exactly {native} px, not of {image_size}")
    sized = {} if options is None else {"img_size": image_size, **options}
    return {"num_classes": config.num_classes or 1000, **sized}


def _create_timm(base: str, version: str | None, image_size: int) -> nn.Module:
    """timm's model, built for the image size where its positions or windows depend on it."""
    native = timm_config(base, version).input_size[-1]
    options = timm_options(base, version, image_size)
    model: Any = built_by_timm(timm_name(base, version), image_size, **options)
    patch = model.patch_embed.feat_ratio() if "img_size" in options else 1
    if image_size % patch and image_size != native:
        raise UserError(f"{base} takes image sizes that are multiples of {patch}; {image_size} is not")
    original: nn.Module = model
    return original


def built_by_timm(name: str, image_size: int, **options: Any) -> nn.Module:
    """timm's model of a name, without pretrained weights.

    Raises:
        UserError: It cannot be built with these options.
    """
    try:
        model: nn.Module = import_timm().create_model(name, pretrained=False, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot build {name} for images of {image_size} px: {error}") from error
    return model


def timm_size_options(name: str) -> Mapping[str, Any] | None:
    """timm's options beside ``img_size`` for a model that is built for an image size; None for one that is not."""
    return _TIMM_SIZED.get(import_timm().models.model_entrypoint(name).__module__.rpartition(".")[2])


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """The end of an error message that names the most similar right name, empty where none is similar."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {prefix + close[0]!r}?" if close else ""
