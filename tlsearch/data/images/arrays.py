"""Files that Pillow does not read whole: arrays (.npy), TIFF of any number of channels, PNG of 16-bit colours.

Each is described by its head before any pixel is decoded. Shapes: H, W, C of an image.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.errors import DataError

_COLOURS = (b"\x02", b"\x04", b"\x06")  # of PNG: RGB, grey with transparency, RGB with transparency
# A head is a Python literal. CPython's parser counts the depth of its recursion for all threads together: where another
# one runs within it, it raises a SystemError (python/cpython issue 106905), and a sound image would be called corrupt.
_LITERALS = threading.Lock()
_DIMENSIONS = "an image has the dimensions (H, W), (H, W, C) or (C, H, W)"


@dataclass(frozen=True, kw_only=True)
class ArrayHead:
    """What a file holds, by its head.

    Attributes:
        shape: (H, W, C).
        dtype: Of its values.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]


def is_npy(data: bytes) -> bool:
    """Whether a file is one that ``numpy.save`` has written."""
    return data.startswith(b"\x93NUMPY")


def is_deep_colour_png(data: bytes) -> bool:
    """Whether a file is a PNG of 16 bits a channel and several channels, of which Pillow keeps 8 bits."""
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data[24:25] == b"\x10" and data[25:26] in _COLOURS


# --- numpy's files ---------------------------------------------------------------------------


def npy_head(data: bytes, name: str) -> ArrayHead:
    """The shape and type of an array; no pickle is read.

    Raises:
        DataError: The head is broken, or the array has other dimensions than an image.
    """
    shape, _, dtype, _ = _npy(data, name)
    return ArrayHead(shape=_image_shape(shape, name), dtype=dtype)


def read_npy(data: bytes, name: str) -> NDArray[Any]:
    """The array as (H, W, C), of the file's own type.

    Raises:
        DataError: As of ``npy_head``; or the file is truncated, or holds objects.
    """
    shape, fortran, dtype, start = _npy(data, name)
    if dtype.hasobject:
        raise DataError(f"{name}: an image holds numbers; this array holds Python objects, which are not read")
    if len(data) - start < math.prod(shape) * dtype.itemsize:
        raise DataError(f"{name}: the file is truncated")
    array = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape, order="F" if fortran else "C")
    return _channels_last(array, name)


def _npy(data: bytes, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether columns come first, type, and where the values begin."""
    file = BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        with _LITERALS:
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except ValueError as error:
        raise DataError(f"{name}: the head of the array is broken: {error}") from error
    return shape, fortran, dtype, file.tell()


def _channel_axis(shape: Sequence[int]) -> int:
    """Where channels are: beside two equal dimensions, else the shorter of the first and the last one."""
    if shape[0] == shape[1] or shape[1] == shape[2]:
        return 0 if shape[0] != shape[1] else 2
    return 0 if shape[0] < shape[2] else 2


def _image_shape(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) != 3:
        raise DataError(f"{name}: {_DIMENSIONS}; this array has the shape {tuple(shape)}")
    height, width = (shape[1], shape[2]) if _channel_axis(shape) == 0 else (shape[0], shape[1])
    return height, width, shape[_channel_axis(shape)]


def _channels_last(array: NDArray[Any], name: str) -> NDArray[Any]:
    _image_shape(array.shape, name)
    return array[..., None] if array.ndim == 2 else np.moveaxis(array, _channel_axis(array.shape), 2)


def as_image_array(array: NDArray[Any], name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """An array in memory as (H, W, C) of uint8 or uint16.

    Raises:
        DataError: It has other dimensions than an image, or values without a fixed range.
    """
    return checked_values(_channels_last(array, name), name)


def checked_values(array: NDArray[Any], name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The same values in this machine's byte order.

    Raises:
        DataError: They have no fixed range: floats, signed or wider integers.
    """
    dtype = array.dtype
    if dtype == np.uint8:
        return array
    if dtype.kind == "u" and dtype.itemsize == 2:
        return array.astype(np.uint16, copy=False)
    missing = int(np.isnan(array).sum()) if dtype.kind == "f" else 0
    nan = f" ({missing:,} of them NaN)" if missing else ""
    raise DataError(
        f"{name}: values of the type {dtype}{nan} have no fixed range: scale them to 0 to 65,535 and save them as "
        "uint16, or to 0 to 255 as uint8, all images by the same factor"
    )


# --- TIFF --------------------------------------------------------------------------------------


def tiff_head(data: bytes, name: str) -> ArrayHead:
    """The shape and type of a TIFF's first series: pages of one size are channels.

    Raises:
        DataError: tifffile is not installed, or the series has other dimensions than an image.
    """
    with _import_tifffile(name).TiffFile(BytesIO(data)) as file:
        series = file.series[0]
        axes, shape = _tiff_axes(series, name)
        sizes = dict(zip(axes, shape, strict=True))
        channels = math.prod(length for axis, length in sizes.items() if axis not in "YX")
        return ArrayHead(shape=(sizes["Y"], sizes["X"], channels), dtype=np.dtype(series.dtype))


def read_tiff(data: bytes, name: str) -> NDArray[Any]:
    """The first series as (H, W, C), upright.

    Raises:
        DataError: As of ``tiff_head``; or its compression needs a package that is not installed.
    """
    try:
        with _import_tifffile(name).TiffFile(BytesIO(data)) as file:
            series = file.series[0]
            axes, shape = _tiff_axes(series, name)
            array = np.asarray(series.asarray()).reshape(shape)
            tag = file.pages[0].tags.get("Orientation")
            orientation = 1 if tag is None else int(tag.value)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise DataError(f"{name}: {error} (pip install imagecodecs), or save it with another compression") from error
    order = [axes.index("Y"), axes.index("X"), *(place for place, axis in enumerate(axes) if axis not in "YX")]
    array = array.transpose(order)
    return upright_array(array[..., None] if array.ndim == 2 else array, orientation)


def _tiff_axes(series: Any, name: str) -> tuple[str, tuple[int, ...]]:
    """The axes of a series, one letter each, and their lengths: Y, X and at most one more."""
    found = zip(series.axes, series.shape, strict=True)
    pairs = [(axis, length) for axis, length in found if axis in "YX" or length > 1]
    axes, shape = "".join(axis for axis, _ in pairs), tuple(int(length) for _, length in pairs)
    if len(axes) > 3 or not {"Y", "X"} <= set(axes):
        raise DataError(f"{name}: {_DIMENSIONS}; this TIFF has the axes {series.axes} of {tuple(series.shape)}")
    return axes, shape


def _import_tifffile(name: str) -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            f"{name}: a TIFF of several pages or channels needs tifffile (pip install 'tlsearch[tiff]'), or save the "
            "images as arrays (.npy)"
        ) from error
    return tifffile


# --- PNG ---------------------------------------------------------------------------------------


def deep_png_head(data: bytes) -> ArrayHead:
    """The shape of a PNG of 16-bit colours."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    channels = {2: 3, 4: 2, 6: 4}[data[25]]
    return ArrayHead(shape=(height, width, channels), dtype=np.dtype(np.uint16))


def read_deep_png(data: bytes) -> NDArray[Any]:
    """A PNG of 16-bit colours as uint16 (H, W, C), with transparency as a channel."""
    import torch
    from torchvision.io import ImageReadMode, decode_png

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: NDArray[Any] = decode_png(encoded, mode=ImageReadMode.UNCHANGED).numpy()
    return np.moveaxis(pixels, 0, 2)


def upright_array(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An array (H, W, C) turned and mirrored as its EXIF orientation says, 1 to 8."""
    if orientation >= 5:  # rows and columns are exchanged, then as their mirror images
        array, orientation = array.swapaxes(0, 1), {5: 1, 6: 2, 7: 3, 8: 4}.get(orientation, 1)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1)}.get(orientation, (1, 1))
    return array[::rows, ::columns]
