"""The evaluation transform, split where the packed store cuts it: PIL to uint8, uint8 to float.

Shapes: images between the two are (H, W, 3) as numpy arrays and (N, 3, H, W) as tensors.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from tlsearch.core.types import TransformSpec

# Of an image that would have more pixels when resized (300 MB of RGB) only the part around the crop is resized.
_MAX_RESIZED_PIXELS = 100_000_000
_MARGIN = 4  # source or resized pixels, whichever are larger, beside the crop: its border is interpolated from them


def eval_image(image: Image.Image, spec: TransformSpec) -> NDArray[np.uint8]:
    """Resizes the shorter side and crops the centre; with ``normalise`` the weights' own transform, to the bit.

    Both steps are torchvision's own on PIL images, as in its ImageClassification preset and in timm's
    evaluation transform. With ``crop_mode`` squash both sides are resized, and the proportions are lost.
    An image smaller than the crop is padded with black.

    Args:
        image: Mode RGB, see ``decode_rgb``.
        spec: Sizes, interpolation and crop mode.

    Returns:
        uint8 of shape (crop_size, crop_size, 3).
    """
    return resized_square(image, spec, spec.crop_size)


def resized_square(image: Image.Image, spec: TransformSpec, side: int) -> NDArray[np.uint8]:
    """The centre square of ``side`` px of the image resized as ``spec`` says; its crop size has no part in it."""
    if spec.crop_mode == "squash":
        size = [spec.resize_size, spec.resize_size]
    else:
        short, long = sorted(image.size)
        if spec.resize_size * spec.resize_size * long // short > _MAX_RESIZED_PIXELS:
            return _square_of_thin(image, spec, side)
        size = [spec.resize_size]
    resized = F.resize(image, size, interpolation=InterpolationMode(spec.interpolation), antialias=True)
    return np.asarray(F.center_crop(resized, [side, side]), dtype=np.uint8)


def _square_of_thin(image: Image.Image, spec: TransformSpec, side: int) -> NDArray[np.uint8]:
    """The same square, without the ends of a long and thin image, which the crop would cut off again.

    Pillow weighs pixels by places in single precision, so a value may differ by one level of 255 from the whole's.
    """
    short, long = sorted(image.size)
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
    return np.asarray(F.center_crop(resized.crop(part), [side, side]), dtype=np.uint8)


def normalise(images: Tensor, spec: TransformSpec) -> Tensor:
    """Scales to [0, 1] and normalises each channel.

    Equal to torchvision's ``convert_image_dtype`` and ``normalize`` to the bit.

    Args:
        images: uint8 (N, 3, H, W) on any device; left as it is.
        spec: Mean and standard deviation.

    Returns:
        float32 of the same shape, device and memory format.
    """
    assert images.dtype == torch.uint8, images.dtype
    if not images.is_contiguous(memory_format=torch.channels_last):
        mean, std = (values.view(3, 1, 1) for values in _constants(spec.mean, spec.std, 1, images.device))
        return images.to(torch.float32).div_(255.0).sub_(mean).div_(std)
    # Whole lines of pixels against lines of constants: loops of three channels would be as many short ones.
    num, _, height, width = images.shape
    lines = images.permute(0, 2, 3, 1).reshape(num * height, width * 3)
    mean, std = _constants(spec.mean, spec.std, width, images.device)
    result = torch.empty(lines.shape, dtype=torch.float32, device=images.device)
    # The CPU works on what its cache holds; other devices on all lines at once.
    block = max(1, _CACHED // lines.shape[1]) if images.device.type == "cpu" else max(1, len(lines))
    for source, target in zip(torch.split(lines, block), torch.split(result, block), strict=True):
        target.copy_(source).div_(255.0).sub_(mean).div_(std)
    return result.view(num, height, width, 3).permute(0, 3, 1, 2)


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
