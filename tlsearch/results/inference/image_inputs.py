"""Images as a caller gives them, opened, decoded once and preprocessed for each network that reads them.

B images of a batch, S side of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.files import IMAGE_BYTES, read_regular
from tlsearch.core.printable import printable
from tlsearch.core.types import RGB8, PixelFormat, TransformSpec
from tlsearch.data import Picture, as_tensor, decode_image, decode_rgb, eval_image
from tlsearch.data.images.arrays import as_image_array
from tlsearch.data.images.own_channels import in_format
from tlsearch.train import PixelSource

ImageLike = Path | str | bytes | NDArray[np.uint8] | NDArray[np.uint16]


class Opener(Protocol):
    """Gives one image; see ``decode_image``."""

    def __call__(self, *, hold: ExitStack) -> Picture: ...


def open_image(image: ImageLike, name: str, max_pixels: int, pixels: PixelFormat = RGB8, *, hold: ExitStack) -> Picture:
    """An image of any kind in the format of a model: RGB upright, with transparency laid on white, or its own channels.

    Args:
        name: What errors call it.
        max_pixels: The most that it may have.
        pixels: What the model takes.

    Raises:
        DataError: It is missing, corrupt, too large, has other channels, or is an array of another type or shape.
    """
    if isinstance(image, bytes):
        return decode_image(image, name, pixels=pixels, max_pixels=max_pixels, hold=hold)
    if isinstance(image, (str, Path)):
        try:
            data = read_regular(image, IMAGE_BYTES)
            return decode_image(data, name, pixels=pixels, max_pixels=max_pixels, hold=hold)
        except OSError as error:
            raise DataError(f"{printable(name)}: cannot be read: {error.strerror or error}") from error
    if not isinstance(image, np.ndarray):
        raise DataError(f"{name}: an image is a path, bytes or an array, not {type(image).__name__}")
    if not pixels.is_rgb:
        return in_format(as_image_array(image, name), pixels, name)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{name}: pixels are uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}")
    return decode_rgb(Image.fromarray(image), name, max_pixels=max_pixels, hold=hold)


def preprocessed(
    transforms: Sequence[TransformSpec], opener: Opener, *, strict: bool
) -> list[NDArray[np.uint8] | NDArray[np.uint16]] | DataError:
    """An image for each preprocessing, (S, S, C); it is decoded once.

    Args:
        strict: An image that cannot be read raises its DataError, which is the answer otherwise.
    """
    try:
        with ExitStack() as hold:
            image = opener(hold=hold)
            return [eval_image(image, transform) for transform in transforms]
    except DataError as error:
        if strict:
            raise
        return error


def pixel_source(pixels: NDArray[np.uint8] | NDArray[np.uint16], transform: TransformSpec) -> PixelSource:
    """A batch, (B, S, S, C) of uint8 or uint16, for a network of this preprocessing."""
    return PixelSource(
        reason="prediction",
        rows=as_tensor(pixels).permute(0, 3, 1, 2),  # channels_last, as in the packed store
        labels=torch.zeros(len(pixels), dtype=torch.int64),
        transform=transform,
    )
