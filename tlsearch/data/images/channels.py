"""From an opened image to upright RGB: orientation, transparency, 16-bit and other modes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tlsearch.core.errors import DataError

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


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; from 5 on width and height are exchanged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block does not spoil the picture
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def is_16_bit(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a channel."""
    tiles = getattr(image, "tile", ())
    return image.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in tiles)


def num_frames(image: Image.Image) -> int:
    """Frames or pages; 1 of a photo with previews (MPO), and where those behind the first are broken."""
    if image.format == "MPO":
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


def to_rgb(image: Image.Image, name: str) -> tuple[Image.Image, int | None]:
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
