"""Any image file to upright 8-bit RGB; shared by training, the data card and serving."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from threading import Lock

import numpy as np
from PIL import Image, UnidentifiedImageError

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable
from tlsearch.core.types import MAX_PIXELS
from tlsearch.data.images.channels import is_16_bit, num_frames, orientation, to_rgb, upright
from tlsearch.data.images.file_formats import DECODERS, FORMATS, HEAD_BYTES, content_words, essential_png, image_format
from tlsearch.data.images.pixel_budget import BUDGET

# The longer side over the shorter. Thinner images are not pictures: a square cut from one shows a single row of pixels.
MAX_ASPECT = 10_000


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
    with ExitStack() as own, errors_named(name, data), without_pillows_limit():
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
    with ExitStack() as own, errors_named(name, data), without_pillows_limit():
        return _decode_bytes(data, name, max_pixels, own if hold is None else hold, draft=draft)


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
        return _decode(opened(data), name, max_pixels, hold, draft=draft)
    except (DataError, MemoryError):
        raise
    except Exception:
        for orientation in (True, False):
            essential = essential_png(data, orientation=orientation)
            if essential is not None and essential != data:
                hold.close()
                try:
                    return _decode(opened(essential), name, max_pixels, hold)
                except (DataError, MemoryError):
                    raise
                except Exception:  # the pixels are broken too: the first error says how
                    continue
        raise


def opened(data: bytes) -> Image.Image:
    """An encoded file as Pillow opens it; nothing is decoded yet."""
    found = image_format(data[:HEAD_BYTES])
    if found == "HEIF" and has_decoder("HEIF"):
        _register_heif()
        return Image.open(BytesIO(data), formats=("HEIF",))
    return Image.open(BytesIO(data), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that Pillow knows; its others start programs (EPS) or cannot be recognised by their content."""
    Image.init()
    return tuple(one for one in FORMATS if one in Image.OPEN and one != "HEIF")


@cache
def _register_heif() -> None:
    importlib.import_module("pillow_heif").register_heif_opener()


def _decode(
    image: Image.Image, name: str, max_pixels: int, hold: ExitStack, *, draft: tuple[int, int] | None = None
) -> Decoded:
    size, mode = image.size, image.mode
    check_size(*size, name, max_pixels)
    deep = is_16_bit(image)
    if draft is not None and image.format in ("JPEG", "MPO"):
        image.draft(None, draft)
    hold.enter_context(BUDGET.take(image.width * image.height))
    image.load()
    turned = orientation(image)
    rgb, brightest = to_rgb(image, name)
    if deep and brightest is None:  # of colours Pillow keeps the upper 8 bits
        brightest = int(np.asarray(rgb).max(initial=0)) * 257 if draft is not None else None
    return Decoded(
        rgb=upright(rgb, turned),
        size=(size[1], size[0]) if turned >= 5 else size,
        mode=mode,
        frames=num_frames(image) if draft is not None else 1,
        brightest=brightest,
    )


@contextmanager
def errors_named(name: str, data: bytes | Image.Image) -> Iterator[None]:
    """Whatever a decoder raises becomes a DataError that names the image."""
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
    return f"is not an image of a known format ({known}){f'; it is {words}' if words else ''}"


_OPENING = Lock()
_num_opening = 0
_pillows_limit: int | None = None


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Lets Pillow open images of any size: our own limit is asked before pixels are decoded.

    Pillow's limit is one of the whole process, warns at one size and refuses at twice that.
    """
    global _num_opening, _pillows_limit
    with _OPENING:
        if _num_opening == 0:
            # not None: Pillow, in another thread, may be between asking for that and reading the number
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, sys.maxsize
        _num_opening += 1
    try:
        yield
    finally:
        with _OPENING:
            _num_opening -= 1
            if _num_opening == 0:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuses images that are too large or too thin to be read.

    Raises:
        DataError: Width or height break a rule.
    """
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
