"""Files and folders that a command writes: whether that is possible is known before the work, not after it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from tlsearch.core.errors import StorageError, UsageError
from tlsearch.core.files import write_atomically
from tlsearch.core.printable import ENCODING_BYTES
from tlsearch.core.types import CacheSpec
from tlsearch.core.user_folders import state_directory


def check_output(path: Path, option: str) -> None:
    """Finds out whether a file can be written; changes nothing.

    Args:
        path: The file; one that exists is going to be replaced.
        option: Names it in messages: ``--output``.

    Raises:
        UsageError: It is a folder, or its folder is missing.
        StorageError: It cannot be written.
    """
    try:
        if path.is_dir():
            raise UsageError(f"{option} must name a file, and {path} is a folder; try {path / 'FILE'}")
        if _is_stream(path):
            if not os.access(path, os.W_OK):  # not opened: who reads a pipe would take its closing for the end
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        folder = path.resolve().parent
        if not folder.is_dir():
            wrong = "is not a folder" if folder.exists() else "does not exist"
            raise UsageError(f"{option} must name a file in a folder that exists; {folder} {wrong}")
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _unwritable(path, option, error) from error


def write_output(path: Path, text: str, option: str) -> None:
    """Writes a text file whole or not at all; a name in it that is not UTF-8 comes out byte for byte.

    A link keeps pointing to the file, and a device or pipe (``/dev/stdout``) is written to, not replaced.

    Raises:
        StorageError: It cannot be written.
    """
    try:
        if _is_stream(path):
            with path.open("w", encoding="utf-8", errors=ENCODING_BYTES) as stream:
                stream.write(text)
        else:
            write_atomically(path.resolve(), text)
    except OSError as error:
        raise _unwritable(path, option, error) from error


def require_folders() -> None:
    """Finds before anything is started that a search's folders outside its storage cannot be made or written.

    Raises:
        StorageError: One cannot; the message says which variable names another.
    """
    state_directory(write=True)
    from tlsearch.node_cache.locked_files import cache_directory

    cache_directory(CacheSpec())


def check_search_folder(path: Path) -> None:
    """Finds out whether a new search's folder can be made; leaves nothing there.

    Raises:
        StorageError: It cannot be.
    """
    there = next(one for one in path.absolute().parents if os.path.lexists(one))
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".tlsearch-"):
            pass
    except OSError as error:
        raise cannot_be_made(path, error) from error


def cannot_be_made(path: Path, error: OSError) -> StorageError:
    """The error of a search's folder that cannot be made."""
    return StorageError(f"the search's folder {path} cannot be made: {error.strerror}")


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _unwritable(path: Path, option: str, error: OSError) -> StorageError:
    return StorageError(f"{option} must name a file that can be written; {path}: {error.strerror or error}")
