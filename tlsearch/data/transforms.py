"""The evaluation transform, split where the packed store cuts it: PIL to uint8, uint8 to float.

Shapes: images between the two are (H, W, 3) as numpy arrays and (N, 3, H, W) as tensors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from tlsearch.errors import DataError
from tlsearch.types import TransformSpec

# A resized image may not have more pixels than this: 300 MB of RGB.
_MAX_RESIZED_PIXELS = 100_000_000


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

    Raises:
        DataError: The image is so long and thin that the resize would make it enormous.
    """
    return resized_square(image, spec, spec.crop_size)


def resized_square(image: Image.Image, spec: TransformSpec, side: int) -> NDArray[np.uint8]:
    """The centre square of ``side`` px of the image resized as ``spec`` says; its crop size has no part in it.

    Raises:
        DataError: As ``eval_image``.
    """
    if spec.crop_mode == "squash":
        size = [spec.resize_size, spec.resize_size]
    else:
        short, long = sorted(image.size)
        if spec.resize_size * spec.resize_size * long // short > _MAX_RESIZED_PIXELS:
            raise DataError(f"too long and thin to resize: {image.width} x {image.height} pixels")
        size = [spec.resize_size]
    resized = F.resize(image, size, interpolation=InterpolationMode(spec.interpolation), antialias=True)
    return np.asarray(F.center_crop(resized, [side, side]), dtype=np.uint8)


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
    mean = torch.tensor(spec.mean, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    return images.to(torch.float32).div_(255.0).sub_(mean).div_(std)


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
