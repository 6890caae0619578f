"""Each weights' own evaluation transform, as the libraries publish it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, get_args

from tlsearch.core.errors import UserError
from tlsearch.core.types import CropMode, TransformSpec
from tlsearch.model.libraries.libraries import is_timm, split_backbone, timm_config, torchvision_weights


@lru_cache(maxsize=256)
def default_transform(backbone: str) -> TransformSpec:
    """The evaluation transform of a backbone's weights at their own size; DEFAULT where no version is named.

    Raises:
        UserError: There is no such backbone or version, or its transform is of another kind.
    """
    base, version = split_backbone(backbone)
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
        UserError: There is no such backbone or version.
    """
    base, version = split_backbone(backbone)
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
