"""The evaluation transform of every official weights, to the bit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tlsearch.core.errors import UserError
from tlsearch.core.types import ModelSpec, TransformSpec, WeightsSource
from tlsearch.data import decode_rgb, eval_image, normalise
from tlsearch.model import default_transform, describe_model, resolve_weights
from tlsearch.model.libraries.libraries import torchvision_names, torchvision_weights

MODES = ("RGB", "L", "P", "RGBA")


def _picture(mode: str, width: int, height: int) -> Image.Image:
    """Smooth colours with some noise, so that every interpolation gives something else."""
    rng = np.random.default_rng(width)
    x, y = np.meshgrid(np.linspace(0, 4, width), np.linspace(0, 3, height))
    waves = np.stack([np.sin(x * k + y) * 100 + 128 for k in (1, 2, 3)], axis=-1)
    colours = np.clip(waves + rng.integers(-20, 20, waves.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(colours)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
    return image.quantize(50) if mode == "P" else image.convert(mode)


@cache
def _pictures() -> dict[str, Image.Image]:
    sizes = {"RGB": (330, 250), "L": (250, 330), "P": (90, 61), "RGBA": (400, 270)}
    return {mode: decode_rgb(_picture(mode, *sizes[mode]), mode) for mode in MODES}


@cache
def _wanted(preset: str, mode: str) -> Tensor:
    return _presets()[preset](_pictures()[mode])


@cache
def _presets() -> dict[str, Any]:
    """Each preset once: the weights of most models share a few."""
    found = {}
    for name in torchvision_names():
        for member in type(torchvision_weights(name, None)):
            preset = member.transforms()
            found[repr(preset)] = preset
    return found


def _ours(mode: str, spec: TransformSpec) -> Tensor:
    pixels = torch.from_numpy(eval_image(_pictures()[mode], spec).copy())[None].permute(0, 3, 1, 2)
    return normalise(pixels, spec)[0]


@cache
def _is_equal(preset: str, spec: TransformSpec, mode: str) -> bool:
    return torch.equal(_ours(mode, spec), _wanted(preset, mode))


@pytest.mark.parametrize("name", torchvision_names())
def test_every_weights_transform_is_its_own_to_the_bit(name: str) -> None:
    """Of all versions; equal pairs of preset and spec are compared once."""
    for member in type(torchvision_weights(name, None)):
        spec = default_transform(f"{name}@{member.name}")
        for mode in MODES:
            assert _is_equal(repr(member.transforms()), spec, mode), f"{member} {mode}"
    default = default_transform(f"{name}@{torchvision_weights(name, None).name}")
    assert default_transform(name) == default_transform(f"{name}@DEFAULT") == default


def test_another_interpolation_or_size_would_be_seen() -> None:
    spec = default_transform("resnet18")
    for other in ({"interpolation": "bicubic"}, {"resize_size": 257}, {"crop_size": 223}, {"crop_mode": "squash"}):
        changed = TransformSpec(**{**vars(spec), **other})
        assert all(not torch.equal(_ours(mode, spec), _ours(mode, changed)) for mode in MODES), other


@pytest.mark.parametrize(
    ("name", "crop_mode"),
    [
        ("tf_efficientnet_lite0", "center"),
        ("tf_efficientnetv2_b3", "squash"),
        ("mobilenetv3_large_100", "center"),
        ("mobilenetv4_conv_small", "center"),
        ("resnet18", "center"),
        ("convnext_tiny.in12k_ft_in1k_384", "squash"),
        ("vit_small_patch14_dinov2", "center"),
        ("vit_base_patch16_clip_224.openai", "center"),
        ("swin_tiny_patch4_window7_224", "center"),
        ("beitv2_base_patch16_224", "center"),
        ("eva02_tiny_patch14_336", "center"),
    ],
)
def test_timms_transform_is_its_own_to_the_bit(name: str, crop_mode: str) -> None:
    timm = pytest.importorskip("timm")
    from timm.data import create_transform, resolve_data_config

    spec = default_transform(f"timm/{name}")
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    theirs = create_transform(**config)
    assert spec.crop_mode == crop_mode
    for mode in MODES:
        assert torch.equal(_ours(mode, spec), theirs(_pictures()[mode])), mode


def test_a_transform_of_another_kind_is_refused_but_can_be_told() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="crop_mode 'border' on 546 x 546 px"):
        default_transform("timm/deepseek_vit_412m")
    with pytest.raises(UserError, match="crop_mode 'squash' on 1024 x 768 px"):
        default_transform("timm/vit_base_patch16_sapiens2")
    told = WeightsSource(kind="none", transform="timm/tf_efficientnetv2_b0")
    assert resolve_weights("timm/tf_efficientnetv2_b3", told).transform == default_transform(told.transform or "")
    spec = ModelSpec(backbone="timm/tf_efficientnetv2_b3", num_classes=10)
    assert describe_model(spec).image_size == 240
