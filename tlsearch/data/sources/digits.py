"""The 1,797 handwritten digits, 8 x 8 pixels, that come with scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data.sources.listing import Item, Listing


def list_digits(spec: DataSpec) -> Listing:
    """Lists the digits; keys are their row numbers, ``0000`` to ``1796``.

    Raises:
        DataError: ``group_by`` is given, which only folders know.
    """
    if spec.split.group_by is not None:
        raise DataError("data.split.group_by is for folders; the digits have no paths")
    _, labels = _bundle()
    keys = [f"{row:04d}" for row in range(len(labels))]
    items = sorted(zip(labels, keys, strict=True))
    return Listing(
        root="",
        reader=DigitsReader(),
        classes=tuple(str(digit) for digit in range(10)),
        items={"all": tuple(Item(key=key, label=label, group=key) for label, key in items)},
    )


@dataclass(frozen=True)
class DigitsReader:
    """Each digit as a binary PGM file: 8 x 8 grey pixels, 0 (ground) to 255 (ink)."""

    def read(self, key: str) -> bytes:
        """The digit of row ``key``."""
        pixels, _ = _bundle()
        return b"P5 8 8 255\n" + bytes(pixels[int(key)].data)

    def name(self, key: str) -> str:
        """The set and the row."""
        return f"digits row {key}"

    def digests(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """Of each row's PGM file."""
        return tuple(hashlib.sha256(self.read(key)).digest() for key in keys)


@lru_cache(maxsize=1)
def _bundle() -> tuple[NDArray[np.uint8], list[int]]:
    """Pixels (1797, 8, 8) scaled from 0..16 to 0..255, and labels."""
    from sklearn.datasets import load_digits  # about a second, and only this source needs it

    bunch = load_digits()
    pixels = np.floor(bunch.images * (255 / 16) + 0.5).astype(np.uint8)
    return pixels, [int(label) for label in bunch.target]
