"""New files of a folder that others read: written beside their place, with the mode of any new file, then renamed."""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, removed unless it was renamed."""
    number, name = tempfile.mkstemp(prefix=draft_prefix(path), suffix=".tmp", dir=path.parent)
    os.close(number)
    try:
        give_usual_mode(Path(name))
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def draft_prefix(path: Path) -> str:
    """How the names of a path's temporary files begin, however long its own name is."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}."


def remove_drafts(path: Path) -> None:
    """Removes what killed writers of ``path`` left; the caller holds its lock."""
    for stale in path.parent.glob(f"{draft_prefix(path)}*.tmp"):
        stale.unlink(missing_ok=True)


def give_usual_mode(path: Path) -> None:
    """Gives a file that was made for its owner alone the mode of any new file of its folder: 0644 with the usual umask.

    Python reads the umask only by setting it, for all threads: a new file shows it without that.
    """
    probe = path.with_name(f".{uuid.uuid4().hex[:12]}.mode")
    try:
        with probe.open("xb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
    finally:
        probe.unlink(missing_ok=True)
    path.chmod(mode)
