"""Marks in a storage: small files that tell whether two machines see one place."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tlsearch.core.files import write_atomically
from tlsearch.core.types import Finding
from tlsearch.data.fetch.bucket_images import remote_problem, remote_system


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
    write_atomically(folder / name, name)


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


@contextmanager
def locked_mark(storage: str, name: str) -> Iterator[bool]:
    """Holds a lock on a mark, as a search does on its study; gives whether the file system has such locks."""
    if "://" in storage:
        yield False
        return
    with open(Path(storage) / name, "r+b") as file:  # NFS gives an exclusive lock to a writer alone
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def sees_lock(storage: str, name: str) -> bool:
    """Whether a mark that another process has locked is locked for this machine too."""
    try:
        with locked_mark(storage, name) as taken:
            return not taken
    except OSError:
        return False


def drop_mark(storage: str, name: str) -> None:
    """Removes a mark; one that is gone, or cannot be removed, is ignored."""
    with contextlib.suppress(OSError):
        if "://" in storage:
            system, root = remote_system(storage)
            system.delete_file(f"{root}/{name}")
        else:
            (Path(storage) / name).unlink()


def data_problem(path: str | None) -> str:
    """Why this machine cannot read the images; empty where it can, or where the source has no path."""
    if path is None:
        return ""
    if "://" in path:
        return remote_problem(path)
    return "" if os.path.exists(path) and os.access(path, os.R_OK) else f"{path} is not there or cannot be read"


def lock_findings(storage: str, nodes: Sequence[str], in_file: bool) -> list[Finding]:
    """What it means that nodes do not see the driver's lock in the storage.

    Args:
        in_file: The study is a file; then the lock alone keeps a second start on another machine from writing it too.
    """
    if not nodes or "://" in storage:
        return []
    text = f"{storage} is on a file system whose locks do not hold between machines: {', '.join(nodes)} do not see ours"
    advice = (
        "put the study into a database, search.study: postgresql://USER@HOST/DATABASE (the password in PGPASSWORD), "
        "or mount the storage with locks"
    )
    return [Finding(name="locks of the storage", status="fail" if in_file else "warn", text=text, advice=advice)]
