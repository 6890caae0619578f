"""Images with the channels and the depth that their files have; and the one decoder for data sets of any format.

RGB of 8 bits is decoded by ``decode_rgb``; all else becomes an array (H, W, C) of uint8 or uint16.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable
from tlsearch.core.types import MAX_CHANNELS, MAX_PIXELS, RGB8, PixelFormat
from tlsearch.data.images.arrays import (
    ArrayHead,
    checked_values,
    deep_png_head,
    is_deep_colour_png,
    is_npy,
    npy_head,
    read_deep_png,
    read_npy,
    read_tiff,
    tiff_head,
)
from tlsearch.data.images.channels import is_16_bit, num_frames, orientation, upright
from tlsearch.data.images.decode import Decoded, check_size, decode_rgb, errors_named, opened, without_pillows_limit
from tlsearch.data.images.file_formats import HEAD_BYTES, image_format
from tlsearch.data.images.pixel_budget import BUDGET

Picture = Image.Image | NDArray[np.uint8] | NDArray[np.uint16]

_MAX_VALUES = 4  # times the pixels that an image may have: of all its channels
_BYTES_OF_A_PIXEL = 12  # that the pixel budget allows for
# Channels of Pillow's modes; those of a palette are its colours'.
_CHANNELS = {"1": 1, "L": 1, "LA": 2, "La": 2, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4}
_SAMPLES, _EXTRA_SAMPLES, _BITS = 277, 338, 258  # tags of TIFF
_DATA = 0  # an extra sample that is not transparency


@dataclass(frozen=True, kw_only=True)
class StoredPixels:
    """What a file holds, by its head.

    Attributes:
        size: Width and height as the file has them, in pixels.
        pixels: The channels and bits that it has.
        is_picture: Whether all of it is in RGB of 8 bits: not arrays, 16-bit files, TIFF with channels of other kinds.
        reader: What decodes it.
    """

    size: tuple[int, int]
    pixels: PixelFormat
    is_picture: bool = False
    reader: Literal["pillow", "npy", "tiff", "png"] = "pillow"


def stored_pixels(data: bytes, name: str) -> StoredPixels:
    """Describes an encoded image; nothing is decoded.

    Raises:
        DataError: It is empty, of no known format, or its values have no fixed range.
    """
    name = printable(name)
    if not data:
        raise DataError(f"{name}: the file is empty")
    with errors_named(name, data), without_pillows_limit():
        if is_npy(data):
            return _of_array(npy_head(data, name), "npy")
        if is_deep_colour_png(data):
            return _of_array(deep_png_head(data), "png")
        if image_format(data[:HEAD_BYTES]) == "TIFF" and (found := _tiff(data, name)) is not None:
            return found
        image = opened(data)
        deep = is_16_bit(image) or image.mode == "I"
        channels = 1 if deep else _CHANNELS.get(image.mode, 3 + ("transparency" in image.info))
        pixels = PixelFormat(channels=channels, bits=16 if deep else 8)
        return StoredPixels(size=image.size, pixels=pixels, is_picture=not deep)


def _of_array(head: ArrayHead, reader: Literal["npy", "tiff", "png"]) -> StoredPixels:
    """Bits of 8 where values are bytes; what is neither bytes nor of 16 bits is refused when it is decoded."""
    height, width, channels = head.shape
    pixels = PixelFormat(channels=channels, bits=8 if head.dtype.itemsize == 1 else 16)
    return StoredPixels(size=(width, height), pixels=pixels, reader=reader)


def _tiff(data: bytes, name: str) -> StoredPixels | None:
    """A TIFF that Pillow does not read whole; None where it does.

    Pages of 16 bits are channels. Those of 8 bits are frames to people, of which the first is the picture, and channels
    where a data set says so.
    """
    try:
        image: Any = opened(data)
        tags = image.tag_v2
        deep = max(_several(tags.get(_BITS, 1))) > 8
        plain = not (deep and tags.get(_SAMPLES, 1) > 1) and _DATA not in _several(tags.get(_EXTRA_SAMPLES, ()))
        pages = num_frames(image) > 1
    except Exception:  # more channels than Pillow knows
        plain, deep, pages = False, False, False
    if plain and not pages:
        return None
    try:
        return replace(_of_array(tiff_head(data, name), "tiff"), is_picture=plain and not deep)
    except DataError:
        if deep or not plain:
            raise
        return None  # pages of colours, or no tifffile: the first is read


def _several(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def own_pixels(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, hold: ExitStack | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decodes an image with the channels that its file has, upright.

    Args:
        hold: As of ``decode_rgb``.

    Returns:
        (H, W, C) of uint8 or uint16.

    Raises:
        DataError: As of ``stored_pixels``; or it is truncated, corrupt or too large.
    """
    stored, name = stored_pixels(data, name), printable(name)
    check_size(*stored.size, name, max_pixels)
    _check_channels(stored, name, max_pixels)
    taken = stored.size[0] * stored.size[1]
    num_bytes = 2 * taken * stored.pixels.channels * stored.pixels.bits // 8
    with ExitStack() as own, errors_named(name, data), without_pillows_limit():
        (own if hold is None else hold).enter_context(BUDGET.take(max(taken, num_bytes // _BYTES_OF_A_PIXEL)))
        if stored.reader == "npy":
            return checked_values(read_npy(data, name), name)
        if stored.reader == "tiff":
            return checked_values(read_tiff(data, name), name)
        return read_deep_png(data) if stored.reader == "png" else _by_pillow(data, name)


def _check_channels(stored: StoredPixels, name: str, max_pixels: int) -> None:
    width, height, channels = *stored.size, stored.pixels.channels
    if not 1 <= channels <= MAX_CHANNELS:
        raise DataError(f"{name}: an image has 1 to {MAX_CHANNELS} channels, not {channels:,}")
    if width * height * channels > _MAX_VALUES * max_pixels:
        raise DataError(
            f"{name}: too many values: {width} x {height} x {channels} are {width * height * channels:,}, at most "
            f"{_MAX_VALUES * max_pixels:,} are read; make the image smaller, or set data.max_pixels"
        )


def _by_pillow(data: bytes, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    image = opened(data)
    turned = orientation(image)
    if image.mode in ("I", "F") and image.format not in ("PNG", "PPM"):
        raise DataError(f"{name}: 32-bit pixels (mode {image.mode}) have no fixed range; convert to 8 or 16 bits")
    if image.mode == "1":
        image = image.convert("L")
    elif not image.mode.startswith("I") and image.mode not in _CHANNELS:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    pixels = np.asarray(upright(image, turned))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return checked_values(pixels.astype(np.uint16) if image.mode.startswith("I") else pixels, name)


def decode_image(
    data: bytes,
    name: str,
    *,
    pixels: PixelFormat = RGB8,
    max_pixels: int = MAX_PIXELS,
    hold: ExitStack | None = None,
) -> Picture:
    """Decodes an image of a data set, or for a model, whose images have a format.

    Args:
        pixels: The format. Values of 8 bits are scaled to one of 16; those of 16 bits are never cut to 8, except in RGB
            as people see it.
        max_pixels: As of ``decode_rgb``, as ``hold``.

    Returns:
        RGB, see ``decode_rgb``; else uint8 or uint16 (H, W, C).

    Raises:
        DataError: As of ``decode_rgb`` and ``own_pixels``; or it has other channels than the format, or more bits.
    """
    if pixels.is_rgb and not is_npy(data):
        return decode_rgb(data, name, max_pixels=max_pixels, hold=hold)
    return in_format(own_pixels(data, name, max_pixels=max_pixels, hold=hold), pixels, name)


def in_format(array: NDArray[Any], pixels: PixelFormat, name: str) -> Picture:
    """An image (H, W, C) as one of a format.

    Raises:
        DataError: It has other channels, or more bits.
    """
    own = PixelFormat(channels=array.shape[2], bits=8 * array.dtype.itemsize)
    if own.channels != pixels.channels or own.bits > pixels.bits:
        raise DataError(f"{printable(name)}: has {own}; this data set and its models take {pixels}")
    if own.bits < pixels.bits:
        array = array.astype(np.uint16) * 257  # 255 becomes 65,535
    return Image.fromarray(array) if pixels.is_rgb else array


def inspect_own(data: bytes, name: str, *, pixels: PixelFormat, max_pixels: int, hold: ExitStack) -> Decoded:
    """As ``inspect_image`` for another format than RGB of 8 bits: what is described is ``picture_of`` the image.

    Raises:
        DataError: As of ``decode_image``.
    """
    array = np.asarray(decode_image(data, name, pixels=pixels, max_pixels=max_pixels, hold=hold))
    return Decoded(
        rgb=picture_of(array),
        size=(array.shape[1], array.shape[0]),
        mode=f"{array.shape[2]} x {array.dtype}",
        brightest=int(array.max(initial=0)) if pixels.bits == 16 else None,
    )


def picture_of(image: Picture) -> Image.Image:
    """An image for people to look at, RGB: of other formats the first three channels, or the first one as grey.

    Each is scaled from its smallest and largest value in this image to 0 and 255.
    """
    if isinstance(image, Image.Image):
        return image
    shown = (image[..., :3] if image.shape[2] >= 3 else image[..., :1]).astype(np.float32)
    low, high = shown.min(axis=(0, 1)), shown.max(axis=(0, 1))
    levels = ((shown - low) * (255 / np.maximum(high - low, 1))).round().astype(np.uint8)
    return Image.fromarray(np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels)


def num_pixels(data: bytes, name: str) -> int:
    """How many pixels an encoded image has, by its head, as of RGB: three channels count as one.

    Raises:
        DataError: As of ``stored_pixels``.
    """
    stored = stored_pixels(data, name)
    return stored.size[0] * stored.size[1] * max(1, stored.pixels.channels // 3)
