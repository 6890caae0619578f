"""Where the encoded bytes of an index come from: files, or rows that a library holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.printable import printable
from tlsearch.core.regular_files import IMAGE_BYTES, open_regular, read_regular
from tlsearch.data.hashing import file_digests


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
    from io import BytesIO

    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
