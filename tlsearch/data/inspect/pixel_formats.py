"""Which channels and bits the images of a data set have, and the mean and deviation of each channel."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable
from tlsearch.core.types import RGB8, DataSpec, PixelFormat
from tlsearch.data.fetch.bucket_images import RemoteReader
from tlsearch.data.image_files import raise_together
from tlsearch.data.images.file_formats import HEAD_BYTES, image_format
from tlsearch.data.images.own_channels import StoredPixels, stored_pixels
from tlsearch.data.images.pixel_budget import for_each
from tlsearch.data.index import ImageIndex, read_image
from tlsearch.data.sources.listing import FileReader

_LOOKED_AT = 1000  # images of a library's set, which are all of one kind
_MEASURED = 1000  # training images, evenly over the classes: the mean of a channel is known to 1 % of its deviation
_EXAMPLES = 3
_CONSTANT = 1e-6  # deviation below which a channel holds nothing to divide by
# Formats that hold 8 bits a channel at most, or are read so. PNG says its depth in its head.
_PICTURES = ("JPEG", "BMP", "GIF", "WEBP", "AVIF", "HEIF")
_PICTURE = StoredPixels(size=(0, 0), pixels=RGB8, is_picture=True)


def find_pixels(index: ImageIndex, spec: DataSpec) -> PixelFormat:
    """The format that the images of train and val are read in: their own, where ``spec`` leaves it open.

    Pictures are RGB of 8 bits, whatever their mode. Arrays, multispectral TIFF and 16-bit files have their own.
    Files are opened and none is decoded; those that cannot be opened have no part in it.

    Raises:
        DataError: They have several formats, or another than ``spec`` says; gives the number of each, with examples.
    """
    if (spec.channels, spec.bits) == (3, 8):
        return RGB8
    found: dict[PixelFormat, list[str]] = defaultdict(list)
    keys = [*index.splits["train"].keys, *index.splits["val"].keys]
    if not isinstance(index.reader, FileReader | RemoteReader):
        keys = keys[:: max(1, len(keys) // _LOOKED_AT)]
    look = partial(_look, index, heads_suffice=spec.channels in (None, 3) and spec.bits != 16)
    for key, stored in zip(keys, for_each(keys, look), strict=True):
        if stored is not None:
            found[_format_of(stored, spec)].append(key)
    if not found:
        return spec.pixel_format
    wanted = [one for one in found if spec.channels in (None, one.channels) and spec.bits in (None, one.bits)]
    if len(found) == 1 and wanted:
        return wanted[0]
    raise DataError(_mixed(index, spec, found))


def _format_of(stored: StoredPixels, spec: DataSpec) -> PixelFormat:
    as_picture = stored.is_picture or (spec.bits == 8 and stored.reader in ("pillow", "png"))
    if as_picture and spec.channels in (None, 3) and spec.bits != 16:
        return RGB8
    return PixelFormat(channels=stored.pixels.channels, bits=max(stored.pixels.bits, spec.bits or 8))


def _mixed(index: ImageIndex, spec: DataSpec, found: dict[PixelFormat, list[str]]) -> str:
    asked = ", ".join(f"{name} {value}" for name, value in (("channels", spec.channels), ("bits", spec.bits)) if value)
    rule = f"all images of a data set have the same channels and bits{f', here {asked}' if asked else ''}"
    lines = [f"{rule}; these have:"]
    for pixels, keys in sorted(found.items(), key=lambda one: -len(one[1])):
        names = ", ".join(printable(index.reader.name(key)) for key in keys[:_EXAMPLES])
        lines.append(f"  {pixels}: {len(keys):,} ({names}{', ...' if len(keys) > _EXAMPLES else ''})")
    lines.append(
        "convert or remove some, or set data.channels and data.bits: 3 and 8 read every picture as RGB of 8 bits, 16 "
        "bits scale values of 8 bits"
    )
    return "\n".join(lines)


def _look(index: ImageIndex, key: str, *, heads_suffice: bool) -> StoredPixels | None:
    """What one file holds; None where it cannot be read, which decoding it will report."""
    try:
        if heads_suffice and isinstance(index.reader, FileReader) and _is_picture(index.reader.head(key, HEAD_BYTES)):
            return _PICTURE
        return stored_pixels(index.reader.read(key), index.reader.name(key))
    except (DataError, OSError):
        return None


def _is_picture(head: bytes) -> bool:
    kind = image_format(head)
    return kind in _PICTURES or (kind == "PNG" and head[24:25] != b"\x10")


def measure_channels(index: ImageIndex) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over training images, at most 1,000 of them; values are in [0, 1].

    Every image counts alike. The deviation of a channel that is constant is given as 1.

    Raises:
        DataError: Images cannot be decoded; names the first 20.
    """
    keys = index.splits["train"].keys
    chosen = keys[:: max(1, -(-len(keys) // _MEASURED))]
    found = list(for_each(chosen, partial(_moments, index)))
    raise_together([one for one in found if isinstance(one, DataError)], len(chosen))
    means, squares = np.mean([one for one in found if not isinstance(one, DataError)], axis=0)
    stds = np.sqrt(np.maximum(squares - means**2, 0))
    stds = np.where(stds < _CONSTANT, 1.0, stds)
    return tuple(round(float(one), 8) for one in means), tuple(round(float(one), 8) for one in stds)


def _moments(index: ImageIndex, key: str) -> NDArray[np.float64] | DataError:
    """Means of the values and of their squares: (2, C); or what is wrong with the image."""
    try:
        image = read_image(index, key)
    except DataError as error:
        return error
    values = np.asarray(image, dtype=np.float64).reshape(-1, index.pixels.channels) / index.pixels.top
    return np.stack([values.mean(axis=0), np.square(values).mean(axis=0)])
