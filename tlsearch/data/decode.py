"""Any image file to upright 8-bit RGB; shared by training and serving."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from tlsearch.errors import DataError
from tlsearch.printable import printable

# Pillow knows more formats, some of which start programs (EPS) or have no suffix of ours.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

# How to turn an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def decode_rgb(data: bytes | Image.Image, name: str) -> Image.Image:
    """Decodes an image to RGB as people see it.

    Palette, grey, CMYK and 16-bit grey (0..65535 scaled to 0..255) become RGB; transparency is laid on
    white; EXIF rotation is applied; of an animation or a multi-page file the first frame counts. Colour
    profiles are ignored, as in the training of the published weights.

    Args:
        data: An encoded file of one of the formats PNG, JPEG, BMP, GIF, WebP, TIFF, PPM, told by its
            content; or an image that Pillow has opened.
        name: What messages call the image, e.g. its path.

    Returns:
        An image of mode RGB that is loaded and depends on no file.

    Raises:
        DataError: The data are empty, truncated, corrupt or in no known format, have more than Pillow's
            limit of 89 million pixels, or pixels without a fixed range (32-bit integers, floats).
    """
    name = printable(name)
    with _told_as_data_error(name):
        image = open_encoded(data, name) if isinstance(data, bytes) else data
        _check_size(image, name)
        image.load()
        return _upright(_to_rgb(image, name), orientation(image))


def open_encoded(data: bytes, name: str) -> Image.Image:
    """Opens an image without decoding it: its size and mode are there, its pixels not yet.

    Raises:
        DataError: The data are empty or in no known format.
    """
    name = printable(name)
    if not data:
        raise DataError(f"{name}: the file is empty")
    with _told_as_data_error(name):
        return Image.open(BytesIO(data), formats=_FORMATS)


@contextmanager
def _told_as_data_error(name: str) -> Iterator[None]:
    try:
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: is no image of a known format ({' '.join(_FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: too many pixels: {error}") from error
    except Exception as error:
        # Decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error, KeyError ...
        raise DataError(f"{name}: the image is corrupt: {error}") from error


def _check_size(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise DataError(f"{name}: too many pixels: {image.width} x {image.height}, at most {limit} are read")
    if image.width < 1 or image.height < 1:
        raise DataError(f"{name}: has no pixels: {image.width} x {image.height}")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; from 5 on width and height are exchanged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block does not spoil the picture
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: 32-bit pixels (mode {image.mode}) have no fixed range; convert to 8 or 16 bits")
    if _has_alpha(image):
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)  # mode I holds the same 0..65535 in more bytes
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _has_alpha(image: Image.Image) -> bool:
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")
