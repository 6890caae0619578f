"""Marks in a storage: small files that tell whether two machines see one place."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tlsearch.data.remote import remote_system


def write_mark(storage: str, name: str) -> None:
    """Writes a file whose content is its name, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    if "://" in storage:
        system, root = remote_system(storage)
        with system.open_output_stream(f"{root}/{name}") as stream:
            stream.write(name.encode())
        return
    folder = Path(storage)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{name}.tmp"
    temporary.write_text(name, encoding="utf-8")
    os.replace(temporary, folder / name)


def read_mark(storage: str, name: str) -> str:
    """The content of a mark.

    Raises:
        OSError: It is not there or cannot be read.
    """
    if "://" in storage:
        system, root = remote_system(storage)
        with system.open_input_stream(f"{root}/{name}") as stream:
            return bytes(stream.read()).decode()
    return (Path(storage) / name).read_text(encoding="utf-8")


def drop_mark(storage: str, name: str) -> None:
    """Removes a mark; one that is gone, or cannot be removed, is no matter."""
    with contextlib.suppress(OSError):
        if "://" in storage:
            system, root = remote_system(storage)
            system.delete_file(f"{root}/{name}")
        else:
            (Path(storage) / name).unlink()
