"""What a source returns: its images, how to read them, and the table of sources.

A source's own libraries are imported only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol

from PIL import Image

from tlsearch.config.data_sources import DATA_SOURCES
from tlsearch.core.errors import DataError
from tlsearch.core.files import IMAGE_BYTES, open_regular, read_regular
from tlsearch.core.label_tasks import Label
from tlsearch.core.printable import printable
from tlsearch.core.types import DataSpec
from tlsearch.data.image_files import file_digests
from tlsearch.data.sources.left_out import LeftOut


class Reader(Protocol):
    """Reads images by key; several threads may read at a time."""

    def read(self, key: str) -> bytes:
        """The encoded image.

        Raises:
            DataError: It cannot be read; names it.
        """
        ...

    def name(self, key: str) -> str:
        """How messages call the image."""
        ...

    def digests(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """SHA-256 of what ``read`` gives for each key.

        Raises:
            DataError: Images cannot be read; names the first 20.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FileReader:
    """Files below ``root``; keys are POSIX paths relative to it."""

    root: str

    def read(self, key: str) -> bytes:
        """The file's content."""
        try:
            return read_regular(os.path.join(self.root, key), IMAGE_BYTES)
        except OSError as error:
            raise DataError(f"{printable(self.name(key))}: cannot be read: {error.strerror or error}") from error

    def head(self, key: str, num_bytes: int) -> bytes:
        """How the file begins.

        Raises:
            OSError: It cannot be read.
        """
        with open_regular(os.path.join(self.root, key), IMAGE_BYTES) as file:
            return file.read(num_bytes)

    def name(self, key: str) -> str:
        """The file's path."""
        return os.path.normpath(Path(self.root, key))

    def digests(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """Of each file, read once per process while it stays as it is."""
        return file_digests(self.root, keys)


def encode(image: Image.Image) -> bytes:
    """An image that was never a file, as a file: the same pixels always give the same bytes.

    Binary PGM or PPM for grey and RGB, which costs no more than a copy; PNG for other modes.
    """
    if image.mode in ("L", "RGB"):
        kind = b"P5" if image.mode == "L" else b"P6"
        return b"%s %d %d 255\n" % (kind, image.width, image.height) + image.tobytes()
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image: its key, its label or labels, and the group that must not be torn apart (by default the key)."""

    key: str
    label: Label
    group: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A source's images.

    Attributes:
        root: Absolute folder that the keys are relative to; empty where images are rows, not files.
        reader: Gives each key's encoded image.
        classes: Class names; sorted, unless the set has an order of its own.
        items: By ``train``, ``val``, ``test`` where the source has them ready (``train`` always,
            the others perhaps), or all under ``all``; each sorted by (label, key).
        spellings: The class names as the data write them, see ``Classes``; empty where they are ``classes``.
        left_out: Files there that are not images of the set.
        notes: Lines for the data card: how the source was read.
        doubt: A question to answer before a search begins, such as whether folders are splits; or empty.
    """

    root: str
    reader: Reader
    classes: tuple[str, ...]
    items: Mapping[str, tuple[Item, ...]]
    spellings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    doubt: str = ""


def list_source(spec: DataSpec) -> Listing:
    """Lists the images of a source, as they are there: nothing split yet.

    Raises:
        DataError: The source is unknown, not there, or breaks one of its rules.
    """
    if spec.source not in DATA_SOURCES:
        raise DataError(f"data.source must be one of {', '.join(DATA_SOURCES)}, not {spec.source!r}")
    found: Listing = resolve_name(DATA_SOURCES[spec.source].lister)(spec)
    return found
