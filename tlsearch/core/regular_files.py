"""Files that others name are opened only where they are regular and of a bounded size: no read waits for ever."""

from __future__ import annotations

import errno
import os
import stat
from typing import IO

IMAGE_BYTES = 1 << 30  # more than any image of the pixels that are decoded
TABLE_BYTES = 1 << 30  # of a manifest, which is read whole
SET_BYTES = 64 << 30  # of one file of a data set that a library reads: a shard, an archive

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refusal(found: os.stat_result, max_bytes: int) -> str:
    """Why a file is not read; empty where it may be."""
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            return f"it is {name}, not a file"
    if found.st_size > max_bytes:
        return f"it has {found.st_size:,} bytes, more than the {max_bytes:,} that are read"
    return ""


def open_regular(path: str | os.PathLike[str], max_bytes: int) -> IO[bytes]:
    """Opens a regular file of at most ``max_bytes`` for reading; links are followed.

    Raises:
        OSError: It cannot be opened, is not regular, or is larger; ``strerror`` says which.
    """
    if text := refusal(os.stat(path), max_bytes):  # before it is opened: that alone may have effects on a device
        raise OSError(errno.EINVAL, text, os.fspath(path))
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if text := refusal(os.fstat(number), max_bytes):  # it may have been replaced
        os.close(number)
        raise OSError(errno.EINVAL, text, os.fspath(path))
    return os.fdopen(number, "rb")


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``.

    Raises:
        OSError: As of ``open_regular``.
    """
    with open_regular(path, max_bytes) as file:
        return file.read(max_bytes)
