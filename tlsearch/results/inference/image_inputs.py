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
from tlsearch.core.types import TransformSpec
from tlsearch.data import decode_rgb, eval_image
from tlsearch.train import PixelSource

ImageLike = Path | str | bytes | NDArray[np.uint8]


class Opener(Protocol):
    """Gives one image; see ``decode_rgb``."""

    def __call__(self, *, hold: ExitStack) -> Image.Image: ...


def open_image(image: ImageLike, name: str, max_pixels: int, *, hold: ExitStack) -> Image.Image:
    """An image of any kind as RGB, upright, with transparency laid on white.

    Args:
        name: What errors call it.
        max_pixels: The most that it may have.

    Raises:
        DataError: It is missing, corrupt, too large, or an array of another type or shape.
    """
    if isinstance(image, bytes):
        return decode_rgb(image, name, max_pixels=max_pixels, hold=hold)
    if isinstance(image, (str, Path)):
        try:
            return decode_rgb(read_regular(image, IMAGE_BYTES), name, max_pixels=max_pixels, hold=hold)
        except OSError as error:
            raise DataError(f"{printable(name)}: cannot be read: {error.strerror or error}") from error
    if not isinstance(image, np.ndarray):
        raise DataError(f"{name}: an image is a path, bytes or an array, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{name}: pixels are uint8 of shape (H, W, 3), not {image.dtype} of shape {image.shape}")
    return decode_rgb(Image.fromarray(image), name, max_pixels=max_pixels, hold=hold)


def preprocessed(
    transforms: Sequence[TransformSpec], opener: Opener, *, strict: bool
) -> list[NDArray[np.uint8]] | DataError:
    """An image for each preprocessing, uint8 (S, S, 3); it is decoded once.

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


def pixel_source(pixels: NDArray[np.uint8], transform: TransformSpec) -> PixelSource:
    """A batch, uint8 (B, S, S, 3), for a network of this preprocessing."""
    return PixelSource(
        reason="prediction",
        rows=torch.from_numpy(pixels).permute(0, 3, 1, 2),  # channels_last, as in the packed store
        labels=torch.zeros(len(pixels), dtype=torch.int64),
        transform=transform,
    )
