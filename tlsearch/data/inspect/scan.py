"""Opens every image of a data set once: size, mode, fingerprints, and whether it can be decoded.

Before a search begins, its data need a clear layout and decoders for their formats; a search that is resumed is not
checked again. Shapes: N images, each with a thumbnail of 16 x 16 grey and 8 x 8 RGB values, see
``picture_of``.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.label_tasks import Label
from tlsearch.core.printable import printable
from tlsearch.data.image_files import quoted, raise_together
from tlsearch.data.images.arrays import is_npy
from tlsearch.data.images.decode import has_decoder, inspect_image
from tlsearch.data.images.file_formats import DECODERS, FORMATS, HEAD_BYTES, image_format
from tlsearch.data.images.own_channels import inspect_own
from tlsearch.data.images.pixel_budget import for_each
from tlsearch.data.index import ImageIndex
from tlsearch.data.sources.left_out import JUNK

GREY_SIDE = 16
COLOUR_SIDE = 8
_SIDE = 32  # of the picture that all is computed from
_DRAFT = (256, 256)  # JPEGs are decoded at a half to an eighth where that leaves this many pixels: 2 to 5 times faster
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# Coefficients of the hash below this share of the whole are noise of compression, and count as zero.
_NOISE = 64.0
_FREQUENCIES = np.cos(np.pi * np.outer(np.arange(9), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image stands in the index."""

    key: str
    split: str
    label: Label


@dataclass(frozen=True, kw_only=True)
class Corrupt:
    """An image that cannot be decoded, and why."""

    place: Place
    error: str


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What was seen.

    Attributes:
        places: N images that can be decoded, in the order of the splits.
        sizes: int64 (N, 2): width and height as people see them.
        modes: N modes of the files, as Pillow calls them; of other formats than RGB of 8 bits channels and type.
        frames: N numbers of frames or pages, of which the first was seen.
        brightest: N largest values, 0 to 65535, of files with 16 bits a channel; None of others.
        digests: N SHA-256 of the files.
        hashes: uint64 (N,): signs of the lowest frequencies; alike for pictures that look alike.
        greys: uint8 (N, 16, 16).
        colours: uint8 (N, 8, 8, 3).
        corrupt: The other images.
    """

    places: tuple[Place, ...]
    sizes: NDArray[np.int64]
    modes: tuple[str, ...]
    frames: tuple[int, ...]
    brightest: tuple[int | None, ...]
    digests: tuple[bytes, ...]
    hashes: NDArray[np.uint64]
    greys: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    corrupt: tuple[Corrupt, ...]


@dataclass(frozen=True, kw_only=True)
class _Look:
    size: tuple[int, int]
    mode: str
    frames: int
    brightest: int | None
    digest: bytes
    grey: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    hash: np.uint64


def look_at(index: ImageIndex, splits: Sequence[str]) -> Looks:
    """Reads and decodes every image of these splits, in parallel."""
    places = [
        Place(key=key, split=name, label=label)
        for name in splits
        for key, label in zip(index.splits[name].keys, index.splits[name].labels, strict=True)
    ]
    seen: list[tuple[Place, _Look]] = []
    corrupt = []
    for place, result in zip(places, for_each([place.key for place in places], partial(_look, index)), strict=True):
        if isinstance(result, str):
            corrupt.append(Corrupt(place=place, error=result))
        else:
            seen.append((place, result))
    return Looks(
        places=tuple(place for place, _ in seen),
        sizes=np.array([look.size for _, look in seen], dtype=np.int64).reshape(-1, 2),
        modes=tuple(look.mode for _, look in seen),
        frames=tuple(look.frames for _, look in seen),
        brightest=tuple(look.brightest for _, look in seen),
        digests=tuple(look.digest for _, look in seen),
        hashes=np.array([look.hash for _, look in seen], dtype=np.uint64),
        greys=np.array([look.grey for _, look in seen], dtype=np.uint8).reshape(-1, GREY_SIDE, GREY_SIDE),
        colours=np.array([look.colour for _, look in seen], dtype=np.uint8).reshape(-1, COLOUR_SIDE, COLOUR_SIDE, 3),
        corrupt=tuple(corrupt),
    )


def _look(index: ImageIndex, key: str) -> _Look | str:
    """One image, or why it cannot be used."""
    name = index.reader.name(key)
    try:
        data = index.reader.read(key)
        with ExitStack() as hold:
            if index.pixels.is_rgb and not is_npy(data):
                decoded = inspect_image(data, name, max_pixels=index.max_pixels, draft=_DRAFT, hold=hold)
            else:
                decoded = inspect_own(data, name, pixels=index.pixels, max_pixels=index.max_pixels, hold=hold)
            small = decoded.rgb.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except DataError as error:
        return str(error).removeprefix(f"{printable(name)}: ")
    pixels = np.asarray(small, dtype=np.float32)
    grey = pixels @ _GREY
    return _Look(
        size=decoded.size,
        mode=decoded.mode,
        frames=decoded.frames,
        brightest=decoded.brightest,
        digest=hashlib.sha256(data).digest(),
        grey=_shrink(grey, GREY_SIDE),
        colour=_shrink(pixels, COLOUR_SIDE),
        hash=_hash(grey),
    )


def _shrink(pixels: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Means over squares: (32, 32, ...) to uint8 (side, side, ...)."""
    step = _SIDE // side
    means = pixels.reshape(side, step, side, step, *pixels.shape[2:]).mean(axis=(1, 3))
    rounded: NDArray[np.uint8] = np.floor(means + 0.5).astype(np.uint8)
    return rounded


def _hash(grey: NDArray[np.float32]) -> np.uint64:
    """64 bits: which of the lowest frequencies of the cosine transform lie above their median (a pHash)."""
    waves = np.round(_FREQUENCIES @ grey @ _FREQUENCIES.T / _NOISE)
    lowest = np.append(waves[:8, :8].ravel()[1:], waves[8, 0])  # the mean brightness is left out
    return np.uint64(int.from_bytes(np.packbits(lowest > np.median(lowest)).tobytes(), "big"))


logger = logging.getLogger(__name__)


def require_ready(index: ImageIndex) -> None:
    """Refuses data that no search should begin with, and logs what is left out of them.

    No image of test is opened: a decoder that is missing for images of test by their names is a warning.

    Raises:
        DataError: The layout is doubtful, or images of train or val are of a format without a decoder here.
    """
    if index.doubt:
        raise DataError(index.doubt)
    for name in ("train", "val"):
        keys = index.splits[name].keys
        failures = [
            f"{index.reader.name(key)}: {found} {DECODERS[found]}, or convert the image"
            for key in keys
            if _lacks_decoder(key)
            and (found := image_format(index.reader.read(key)[:HEAD_BYTES])) in DECODERS
            and not has_decoder(found)
        ]
        raise_together(failures, len(keys))
    if "test" in index.splits and (lacking := [key for key in index.splits["test"].keys if _lacks_decoder(key)]):
        logger.warning(
            "images of test that cannot be decoded here if they are what they are called: %s", quoted(lacking)
        )
    left = [one for one in index.left_out if one.reason != JUNK]
    if left:
        reasons = "; ".join(f"{one.reason}: {len(one.keys):,}" for one in left)
        logger.warning("files left out of the data: %s. `tlsearch check` names them", printable(reasons))
    for note in index.notes:
        logger.warning("the data: %s", printable(note))


def _lacks_decoder(key: str) -> bool:
    """Whether a file is called like one of a format that cannot be decoded here."""
    suffix = os.path.splitext(key)[1].lower()
    return any(suffix in FORMATS[one] and not has_decoder(one) for one in DECODERS)
