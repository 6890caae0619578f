"""Locks of what the cache holds: one writer for each path, and readers that keep it from being removed.

The writer locks ``<path>.lock``. A reader holds a shared lock on the data for as long as it uses them. The kernel
releases both when a process dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_KEPT: dict[Path, int | None] = {}


@contextmanager
def writing(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Makes the folder of a path and locks the path for its one writer; filelock.Timeout where another writes it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=timeout_s):
        yield


def hold(data: Path) -> int | None:
    """Keeps a file or folder from being removed until the descriptor is closed; None where it was just removed."""
    number = os.open(data, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_SH)  # waits while it is being removed
        if os.fstat(number).st_nlink > 0:
            return number
    except OSError:  # a file system without locks: nobody can remove it either
        return number
    os.close(number)
    return None


def keep(path: Path) -> None:
    """Keeps a file or folder from being removed while this process lives."""
    if path not in _KEPT:
        with suppress(OSError):
            _KEPT[path] = hold(path)


@contextmanager
def unused(path: Path, *data: Path) -> Iterator[bool]:
    """Locks a path against writers, and its data against readers; gives whether that was possible."""
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(f"{path}.lock", timeout=0))
            for one in data:
                with suppress(FileNotFoundError):
                    number = os.open(one, os.O_RDONLY)
                    stack.callback(os.close, number)
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except (Timeout, OSError):
            free = False
        yield free


def remove_fetched(path: Path) -> bool:
    """Removes a fetched file or folder, with what lies beside it, unless a process keeps it or is fetching it."""
    with unused(path, path.parent, path) as free:  # torchvision's sets are kept together, as their files lie
        if not free:
            return False
        Path(f"{path}.json").unlink(missing_ok=True)  # first: it marks the set as whole
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    Path(f"{path}.lock").unlink(missing_ok=True)
    return True
