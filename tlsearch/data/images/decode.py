"""Any image file to upright 8-bit RGB; shared by training, the data card and serving."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable
from tlsearch.core.types import MAX_PIXELS
from tlsearch.data.images.file_formats import DECODERS, FORMATS, HEAD_BYTES, content_words, image_format
from tlsearch.data.images.pixel_budget import BUDGET
from tlsearch.data.images.png_chunks import essential_png

# The longer side over the shorter. Thinner images are no pictures: a square cut from one shows a single row of pixels.
MAX_ASPECT = 10_000

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

_BAND_PIXELS = 1_000_000  # converted at a time

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image, and what its file says of it.

    Attributes:
        rgb: Upright, of mode RGB, loaded; depends on no file. Smaller than ``size`` where a draft was asked for.
        size: Width and height as people see them, in pixels.
        mode: Of the file, as Pillow calls it.
        frames: Frames of an animation, pages of a TIFF; only the first is read.
        brightest: Of a file with 16 bits a channel its largest value, 0 to 65535; None of other files.
    """

    rgb: Image.Image
    size: tuple[int, int]
    mode: str
    frames: int = 1
    brightest: int | None = None


def decode_rgb(
    data: bytes | Image.Image, name: str, *, max_pixels: int = MAX_PIXELS, hold: ExitStack | None = None
) -> Image.Image:
    """Decodes an image to RGB as people see it.

    Palette, grey, CMYK and 16-bit images (0..65535 scaled to 0..255) become RGB; transparency is laid on
    white; EXIF rotation is applied; of an animation or a multi-page file the first frame counts. Colour
    profiles are ignored, as in the training of the published weights. A PNG is good if its pixels are: texts and
    profiles that Pillow refuses for their size or a wrong checksum are passed over.

    Args:
        data: An encoded file of one of FORMATS, known by its content; or an image that Pillow has opened.
        name: What messages call the image, e.g. its path.
        max_pixels: The most pixels that an image may have.
        hold: Holds the image's part of the process's pixel budget until it is closed: when the image is small, and
            before the thread decodes another. None holds it while the image is decoded.

    Returns:
        An image of mode RGB that is loaded and depends on no file.

    Raises:
        DataError: The data are empty, truncated, corrupt or in no known format, have more than ``max_pixels``
            pixels, a side longer than MAX_ASPECT times the other, or pixels without a fixed range (32-bit integers,
            floats).
    """
    name = printable(name)
    with ExitStack() as own, _errors_named(name, data), _without_pillows_limit():
        hold = own if hold is None else hold
        if isinstance(data, Image.Image):
            return _decode(data, name, max_pixels, hold).rgb
        return _decode_bytes(data, name, max_pixels, hold).rgb


def inspect_image(
    data: bytes,
    name: str,
    *,
    max_pixels: int = MAX_PIXELS,
    draft: tuple[int, int],
    hold: ExitStack | None = None,
) -> Decoded:
    """Decodes an image to describe it: the same images are refused as by ``decode_rgb``, for the same reasons.

    Args:
        draft: A JPEG is decoded at a half to an eighth of its size where that leaves this many pixels.
        hold: As of ``decode_rgb``.

    Raises:
        DataError: As ``decode_rgb``.
    """
    name = printable(name)
    with ExitStack() as own, _errors_named(name, data), _without_pillows_limit():
        return _decode_bytes(data, name, max_pixels, own if hold is None else hold, draft=draft)


def num_pixels(data: bytes, name: str) -> int:
    """How many pixels an encoded image has, by its head; nothing is decoded.

    Raises:
        DataError: The data are empty, or of no known format.
    """
    name = printable(name)
    if not data:
        raise DataError(f"{name}: the file is empty")
    with _errors_named(name, data), _without_pillows_limit():
        width, height = _open(data).size
        return width * height


def has_decoder(image_format: str) -> bool:
    """Whether this installation can decode a format of FORMATS."""
    if image_format == "HEIF":
        return importlib.util.find_spec("pillow_heif") is not None
    return image_format in _formats()


def _decode_bytes(
    data: bytes, name: str, max_pixels: int, hold: ExitStack, *, draft: tuple[int, int] | None = None
) -> Decoded:
    if not data:
        raise DataError(f"{name}: the file is empty")
    try:
        return _decode(_open(data), name, max_pixels, hold, draft=draft)
    except (DataError, MemoryError):
        raise
    except Exception:
        for orientation in (True, False):
            essential = essential_png(data, orientation=orientation)
            if essential is not None and essential != data:
                hold.close()
                try:
                    return _decode(_open(essential), name, max_pixels, hold)
                except (DataError, MemoryError):
                    raise
                except Exception:  # the pixels are broken too: the first error says how
                    continue
        raise


def _open(data: bytes) -> Image.Image:
    found = image_format(data[:HEAD_BYTES])
    if found == "HEIF" and has_decoder("HEIF"):
        _register_heif()
        return Image.open(BytesIO(data), formats=("HEIF",))
    return Image.open(BytesIO(data), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that Pillow knows; others of Pillow's start programs (EPS) or are not told by their content."""
    Image.init()
    return tuple(one for one in FORMATS if one in Image.OPEN and one != "HEIF")


@cache
def _register_heif() -> None:
    importlib.import_module("pillow_heif").register_heif_opener()


def _decode(
    image: Image.Image, name: str, max_pixels: int, hold: ExitStack, *, draft: tuple[int, int] | None = None
) -> Decoded:
    size, mode = image.size, image.mode
    _check_size(*size, name, max_pixels)
    deep = _is_16_bit(image)
    if draft is not None and image.format in ("JPEG", "MPO"):
        image.draft(None, draft)
    hold.enter_context(BUDGET.take(image.width * image.height))
    image.load()
    turned = orientation(image)
    rgb, brightest = _to_rgb(image, name)
    if deep and brightest is None:  # of colours Pillow keeps the upper 8 bits
        brightest = int(np.asarray(rgb).max(initial=0)) * 257 if draft is not None else None
    return Decoded(
        rgb=_upright(rgb, turned),
        size=(size[1], size[0]) if turned >= 5 else size,
        mode=mode,
        frames=_num_frames(image) if draft is not None else 1,
        brightest=brightest,
    )


@contextmanager
def _errors_named(name: str, data: bytes | Image.Image) -> Iterator[None]:
    try:
        yield
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: {_unidentified(data[:HEAD_BYTES] if isinstance(data, bytes) else b'')}") from error
    except Exception as error:
        # Decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error, KeyError ...
        raise DataError(f"{name}: the image is corrupt: {error}") from error


def _unidentified(head: bytes) -> str:
    """What is wrong with a file that Pillow cannot open."""
    found = image_format(head)
    if found in DECODERS and not has_decoder(found):
        return f"{found} {DECODERS[found]}, or convert the image"
    if found is not None:
        return f"the image is corrupt: it begins like {found}, but cannot be read"
    words = content_words(head)
    known = " ".join(_formats())
    return f"is no image of a known format ({known}){f'; it is {words}' if words else ''}"


_OPENING = Lock()
_num_opening = 0
_pillows_limit: int | None = None


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lets Pillow open images of any size: our own limit is asked before pixels are decoded.

    Pillow's limit is one of the whole process, warns at one size and refuses at twice that.
    """
    global _num_opening, _pillows_limit
    with _OPENING:
        if _num_opening == 0:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _num_opening += 1
    try:
        yield
    finally:
        with _OPENING:
            _num_opening -= 1
            if _num_opening == 0:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise DataError(f"{name}: has no pixels: {width} x {height}")
    if width * height > max_pixels:
        raise DataError(
            f"{name}: too many pixels: {width} x {height} are {width * height:,}, at most {max_pixels:,} are read; "
            "make the image smaller, or set data.max_pixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(
            f"{name}: too long and thin: {width} x {height} pixels; "
            f"the longer side may be at most {MAX_ASPECT:,} times the shorter"
        )


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; from 5 on width and height are exchanged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block does not spoil the picture
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _is_16_bit(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a channel."""
    tiles = getattr(image, "tile", ())
    return image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in tiles)


def _num_frames(image: Image.Image) -> int:
    """Frames or pages; 1 of a photo with previews (MPO), and where those behind the first are broken."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


def _to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, int | None]:
    """The image as RGB; of 16-bit grey the largest value too."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image)  # mode I holds the same 0..65535 in more bytes
        return _from_16_bit(values).convert("RGB"), int(values.max(initial=0))
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: 32-bit pixels (mode {image.mode}) have no fixed range; convert to 8 or 16 bits")
    if _has_alpha(image):
        return _on_white(image), None
    return image if image.mode == "RGB" else image.convert("RGB"), None


def _on_white(image: Image.Image) -> Image.Image:
    """In bands of rows: whole copies with alpha would take three times the memory of the picture."""
    whole = Image.new("RGB", image.size)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        whole.paste(Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB"), (0, top))
    return whole


def _from_16_bit(values: NDArray[np.integer]) -> Image.Image:
    grey = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _BAND_PIXELS // values.shape[1])
    for top in range(0, len(values), rows):
        grey[top : top + rows] = (values[top : top + rows].astype(np.uint32) * 255 + 32767) // 65535
    return Image.fromarray(grey)


def _has_alpha(image: Image.Image) -> bool:
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")
