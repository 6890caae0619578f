"""Preprocessing is the weights' own transform, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.models as tvm
from PIL import Image

from tlsearch.core.types import TransformSpec
from tlsearch.data import decode_rgb, eval_image, normalise, with_image_size

WEIGHTS = [
    tvm.ResNet18_Weights.IMAGENET1K_V1,  # 256/224 bilinear
    tvm.ResNet50_Weights.IMAGENET1K_V2,  # 232/224 bilinear
    tvm.EfficientNet_B0_Weights.DEFAULT,  # 256/224 bicubic
    tvm.EfficientNet_B3_Weights.DEFAULT,  # 320/300 bicubic
    tvm.EfficientNet_V2_S_Weights.DEFAULT,  # 384/384 bilinear
    tvm.EfficientNet_V2_L_Weights.DEFAULT,  # 480/480 bicubic, mean and std 0.5
    tvm.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,  # 384/384 bicubic
    tvm.Inception_V3_Weights.DEFAULT,  # 342/299
    tvm.Swin_T_Weights.DEFAULT,  # 232/224 bicubic
]


def spec_of(preset) -> TransformSpec:
    return TransformSpec(
        resize_size=preset.resize_size[0],
        crop_size=preset.crop_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def picture(mode: str, width: int, height: int) -> Image.Image:
    channels = {"RGB": 3, "L": 1, "P": 3, "RGBA": 4}[mode]
    values = np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    image = Image.fromarray(values[..., 0] if channels == 1 else values)
    return image.quantize(50) if mode == "P" else image


def as_batch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy())[None].permute(0, 3, 1, 2)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_equals_the_weights_own_transform(weights, mode):
    preset = weights.transforms()
    spec = spec_of(preset)
    for size in ((500, 375), (333, 480), (64, 64), (91, 30)):
        image = decode_rgb(picture(mode, *size), "x")
        got = normalise(as_batch(eval_image(image, spec)), spec)[0]
        assert torch.equal(got, preset(image))


def test_an_image_smaller_than_the_crop_is_padded_as_torchvision_does():
    from torchvision.transforms._presets import ImageClassification

    preset = ImageClassification(resize_size=20, crop_size=33)
    image = picture("RGB", 31, 25)
    pixels = eval_image(image, spec_of(preset))
    assert pixels.shape == (33, 33, 3)
    assert not pixels[0].any()
    assert torch.equal(normalise(as_batch(pixels), spec_of(preset))[0], preset(image))


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_equals_the_evaluation_transform_of_timm(crop_mode):
    pytest.importorskip("timm")
    from timm.data import create_transform

    colours = {"mean": (0.5, 0.5, 0.5), "std": (0.4, 0.5, 0.6)}
    for size, crop_pct, interpolation in ((224, 0.875, "bicubic"), (240, 0.882, "bicubic"), (96, 1.0, "bilinear")):
        options = {"interpolation": interpolation, "crop_mode": crop_mode, **colours}
        theirs = create_transform(size, crop_pct=crop_pct, **options)
        spec = TransformSpec(resize_size=int(size / crop_pct), crop_size=size, **options)
        for width, height in ((300, 200), (64, 70), (500, 90)):
            image = picture("RGB", width, height)
            assert torch.equal(normalise(as_batch(eval_image(image, spec)), spec)[0], theirs(image))


def test_a_squashed_image_is_seen_whole():
    image = Image.new("RGB", (40, 10))
    image.paste((255, 0, 0), (0, 0, 4, 10))
    squashed = eval_image(image, TransformSpec(resize_size=10, crop_size=10, crop_mode="squash"))
    centred = eval_image(image, TransformSpec(resize_size=10, crop_size=10))
    assert squashed[:, 0, 0].min() > 128 and not centred.any()
    long = eval_image(Image.new("RGB", (20000, 1)), TransformSpec(resize_size=8, crop_size=8, crop_mode="squash"))
    assert long.shape == (8, 8, 3)


def test_normalise_leaves_its_input_and_keeps_the_memory_format():
    spec = TransformSpec(resize_size=8, crop_size=8)
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    before = images.clone()
    result = normalise(images, spec)
    assert torch.equal(images, before)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, normalise(images.contiguous(), spec))


@pytest.mark.parametrize(
    ("native", "size", "want"),
    [
        ((256, 224), 96, (110, 96)),
        ((232, 224), 64, (66, 64)),
        ((384, 384), 96, (96, 96)),
        ((256, 224), None, (256, 224)),
    ],
)
def test_image_size_keeps_the_proportion(native, size, want):
    colours = {"interpolation": "bicubic", "mean": (0.1, 0.2, 0.3), "crop_mode": "squash"}
    spec = TransformSpec(resize_size=native[0], crop_size=native[1], **colours)
    got = with_image_size(spec, size)
    assert (got.resize_size, got.crop_size, got.crop_mode) == (*want, "squash")
    assert (got.interpolation, got.mean, got.std) == (spec.interpolation, spec.mean, spec.std)


@pytest.mark.parametrize("size", [(4000, 2), (2, 3001)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_of_a_long_and_thin_image_only_the_middle_is_resized(monkeypatch, size, interpolation):
    image = picture("RGB", *size)
    for resize_size in (40, 24):
        spec = TransformSpec(resize_size=resize_size, crop_size=32, interpolation=interpolation)
        whole = eval_image(image, spec)
        with monkeypatch.context() as patch:
            patch.setattr("tlsearch.data.images.preprocessing._MAX_RESIZED_PIXELS", 1000)
            part = eval_image(image, spec)
        assert part.shape == (32, 32, 3)
        assert np.abs(part.astype(int) - whole).max() <= 1 and (part == whole).mean() > 0.9


def test_no_image_is_too_thin_for_one_backbone_and_not_for_another():
    image = Image.new("RGB", (20000, 2), "red")
    for resize_size in (64, 256, 800):
        pixels = eval_image(image, TransformSpec(resize_size=resize_size, crop_size=64))
        assert pixels.shape == (64, 64, 3) and (pixels == [255, 0, 0]).all()
