"""The evaluation transform, split where the packed store cuts it: images to 8 or 16 bits, these to float.

Shapes: images between the two are (H, W, C) as numpy arrays and (N, C, H, W) as tensors. Tensors hold values of 16 bits
as the int16 of the same bits (``as_tensor``), since torch computes little in uint16.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tlsearch.core.imports import without_compiler
from tlsearch.core.types import DataSpec, TransformSpec
from tlsearch.data.images.own_channels import Picture

with without_compiler():
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

# Of an image that would have more pixels when resized (300 MB of RGB) only the part around the crop is resized.
_MAX_RESIZED_PIXELS = 100_000_000
_MARGIN = 4  # source or resized pixels, whichever are larger, beside the crop: its border is interpolated from them

Pixels = NDArray[np.uint8] | NDArray[np.uint16]  # (H, W, C)


def eval_image(image: Picture, spec: TransformSpec) -> Pixels:
    """Resizes the shorter side and crops the centre; with ``normalise`` the weights' own transform, to the bit.

    Both steps are torchvision's own on PIL images, as in its ImageClassification preset and in timm's
    evaluation transform. With ``crop_mode`` squash both sides are resized, and the proportions are lost.
    An image smaller than the crop is padded with black.

    Args:
        image: Mode RGB, see ``decode_rgb``; or an array (H, W, C) of uint8 or uint16, each channel of which is resized
            alone.
        spec: Sizes, interpolation and crop mode.

    Returns:
        (crop_size, crop_size, C), of uint8 or uint16 as the image.
    """
    if isinstance(image, Image.Image):
        return np.asarray(_square(image, spec), dtype=np.uint8)
    # Pillow resizes floats in as many digits as 16 bits have; it knows no 16-bit images that it could resize.
    working = image if image.dtype == np.uint8 else image.astype(np.float32)
    bands = [np.asarray(_square(Image.fromarray(working[..., c]), spec)) for c in range(image.shape[2])]
    values = np.stack(bands, axis=2).round()
    if image.dtype == np.uint8:
        return values.astype(np.uint8)
    return values.clip(0, 65535).astype(np.uint16)  # bicubic weights go beyond the range


def _square(image: Image.Image, spec: TransformSpec) -> Image.Image:
    if spec.crop_mode == "squash":
        size = [spec.resize_size, spec.resize_size]
    else:
        short, long = sorted(image.size)
        if spec.resize_size * spec.resize_size * long // short > _MAX_RESIZED_PIXELS:
            return _square_of_thin(image, spec)
        size = [spec.resize_size]
    resized = F.resize(image, size, interpolation=InterpolationMode(spec.interpolation), antialias=True)
    cropped: Image.Image = F.center_crop(resized, [spec.crop_size, spec.crop_size])
    return cropped


def _square_of_thin(image: Image.Image, spec: TransformSpec) -> Image.Image:
    """The same square, without the ends of a long and thin image, which the crop would cut off again.

    Pillow weighs pixels by places in single precision, so a value may differ by one level of 255 from the whole's.
    """
    (short, long), side = sorted(image.size), spec.crop_size
    length = int(spec.resize_size * long / short)  # of the whole image resized, as torchvision rounds it
    left = round((length - side) / 2.0)
    margin = _MARGIN * max(1, math.ceil(length / long))
    first, last = max(left - margin, 0), min(left + side + margin, length)
    start, end = first * long / length, last * long / length
    near, far = math.floor(start), min(math.ceil(end), long)
    start, end = start - near, end - near  # small numbers: Pillow takes a box in single precision
    wide = image.width >= image.height
    strip = image.crop((near, 0, far, short) if wide else (0, near, short, far))
    box = (start, 0.0, end, float(short)) if wide else (0.0, start, float(short), end)
    size = (last - first, spec.resize_size) if wide else (spec.resize_size, last - first)
    resized = strip.resize(size, Image.Resampling[spec.interpolation.upper()], box=box)
    offset = left - first
    part = (offset, 0, offset + side, spec.resize_size) if wide else (0, offset, spec.resize_size, offset + side)
    cropped: Image.Image = F.center_crop(resized.crop(part), [side, side])
    return cropped


def as_tensor(pixels: NDArray[Any]) -> Tensor:
    """Images of uint8 as they are, those of uint16 as int16 of the same bits; shares the memory."""
    return torch.from_numpy(for_torch(pixels))


def for_torch(pixels: NDArray[Any]) -> NDArray[Any]:
    """The memory of images in the type that ``as_tensor`` has."""
    return pixels if pixels.dtype == np.uint8 else pixels.view(np.int16)


def levels(images: Tensor) -> Tensor:
    """The values of images, see ``as_tensor``, in float32, new: 0 to 255, or 0 to 65,535."""
    values = images.to(torch.float32)
    return values if images.dtype == torch.uint8 else torch.where(values < 0, values + 65536.0, values)


def stored_levels(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Whole values in float32 as images of that dtype, see ``as_tensor``; beyond its range they are cut off."""
    if dtype == torch.uint8:
        return values.clamp_(0, 255).to(torch.uint8)
    return values.clamp_(0, 65535).to(torch.int32).to(torch.int16)


def top_level(dtype: torch.dtype) -> float:
    """The largest value of images of that dtype, see ``as_tensor``."""
    return 255.0 if dtype == torch.uint8 else 65535.0


def normalise(images: Tensor, spec: TransformSpec) -> Tensor:
    """Scales to [0, 1] and normalises each channel.

    Of RGB equal to torchvision's ``convert_image_dtype`` and ``normalize`` to the bit.

    Args:
        images: uint8 (N, C, H, W), or int16 as of ``as_tensor``, on any device; left as it is.
        spec: Mean and standard deviation.

    Returns:
        float32 of the same shape, device and memory format.
    """
    assert images.dtype == (torch.uint8 if spec.bits == 8 else torch.int16), images.dtype
    top = top_level(images.dtype)
    if not images.is_contiguous(memory_format=torch.channels_last):
        mean, std = (values.view(-1, 1, 1) for values in _constants(spec.mean, spec.std, 1, images.device))
        return levels(images).div_(top).sub_(mean).div_(std)
    # Whole lines of pixels against lines of constants: loops of three channels would be as many short ones.
    num, channels, height, width = images.shape
    lines = images.permute(0, 2, 3, 1).reshape(num * height, width * channels)
    mean, std = _constants(spec.mean, spec.std, width, images.device)
    result = torch.empty(lines.shape, dtype=torch.float32, device=images.device)
    # The CPU works on what its cache holds; other devices on all lines at once.
    block = max(1, _CACHED // lines.shape[1]) if images.device.type == "cpu" else max(1, len(lines))
    for source, target in zip(torch.split(lines, block), torch.split(result, block), strict=True):
        target.copy_(source if source.dtype == torch.uint8 else levels(source)).div_(top).sub_(mean).div_(std)
    return result.view(num, height, width, channels).permute(0, 3, 1, 2)


_CACHED = 65536  # float32 values


@lru_cache(maxsize=32)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], times: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and std, each repeated, made once for each device: making them there waits for it."""
    with torch.inference_mode(False):
        first, second = (
            torch.tensor(values, dtype=torch.float32, device=device).repeat(times) for values in (mean, std)
        )
        return first, second


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """The context of products of pixels: an autocast around them would round levels to 8 bits and fewer."""
    usable = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if usable else nullcontext()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host, sent to a device without waiting for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def data_transform(spec: TransformSpec, data: DataSpec, image_size: int | None) -> TransformSpec:
    """The weights' own transform for the images of a data set, at another crop size where one is named.

    Args:
        spec: The weights' own transform.
        data: Its channels and bits, with their mean and deviation.
        image_size: As of ``with_image_size``.
    """
    return with_image_size(spec.for_pixels(data.pixel_format, data.mean, data.std), image_size)


def with_image_size(spec: TransformSpec, image_size: int | None) -> TransformSpec:
    """The transform at another crop size, with the proportion of resize to crop kept.

    Args:
        spec: The weights' own transform.
        image_size: Side of the crop in pixels; None keeps the transform as it is.

    Returns:
        Resize ``round(image_size * resize_size / crop_size)``, crop ``image_size``.
    """
    if image_size is None:
        return spec
    resize_size = round(image_size * spec.resize_size / spec.crop_size)
    return replace(spec, resize_size=resize_size, crop_size=image_size)
