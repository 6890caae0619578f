"""Text files that are written whole or not at all, bounded reads of regular files, and the sizes of folders.

Files that others name are opened only where they are regular and of a bounded size: no read waits for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from tlsearch.core.printable import ENCODING_BYTES
from tlsearch.core.secrets import holds_secret

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


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never half.

    A text that holds a secret is readable by its owner alone, from the first byte on.
    """
    # Not by the process's number: nodes share folders, and containers count from 1.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    mode = 0o600 if holds_secret(text) else 0o666  # less the umask
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        # Names of files may be any bytes.
        with os.fdopen(handle, "w", encoding="utf-8", errors=ENCODING_BYTES) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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


def first_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists; the folders between can be made."""
    # os.path: a path that the system refuses, as too long, does not exist.
    return next((one for one in (path, *path.parents) if os.path.exists(one)), path)


def folder_bytes(folder: Path) -> int:
    """What the files below a folder take; those that vanish meanwhile count nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total
