"""The packed store's budget: room is made by removing the least recently used entries that nobody reads.

Who reads an entry holds a shared lock on its .npy file for as long as it is mapped; the kernel lets go of it
when the reader dies. Where the system has no such locks (Windows), nothing is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_KEPT: dict[Path, int | None] = {}
_AUTO_SHARE = 0.5  # of the disk space that is free, the store's own entries counted as free


def budget_bytes(folder: Path, images_gb: float | None) -> int:
    """What the store may hold: the configured budget, or a share of the free disk, and never more than fits."""
    free = shutil.disk_usage(folder).free + held_bytes(folder)
    return int(free * _AUTO_SHARE) if images_gb is None else min(int(images_gb * 1e9), free)


def held_bytes(folder: Path) -> int:
    """What the entries take, those that are being written included."""
    return sum(_size(path) for path in folder.glob("*") if path.suffix in (".npy", ".tmp"))


def reserve(folder: Path, temporary: Path, size_bytes: int, images_gb: float | None) -> bool:
    """Gives a new entry its room: removes others as far as needed, and lets the file have its size at once.

    Args:
        folder: The store's.
        temporary: The entry's file, empty yet; its writer holds the entry's lock.
        size_bytes: What it will take.
        images_gb: The budget; None is auto.

    Returns:
        Whether there is room. If not, nothing was removed but what killed writers had left.
    """
    with FileLock(folder / "room.lock"):
        _remove_abandoned(folder)
        budget = budget_bytes(folder, images_gb)
        excess = held_bytes(folder) + size_bytes - budget
        if size_bytes > budget or not _evict(folder, excess):
            return False
        os.truncate(temporary, size_bytes)  # others see it in held_bytes from now on
        return True


def hold(data_path: Path) -> int | None:
    """Keeps an entry from being removed until the file descriptor given is closed; None where it is not to be had."""
    number = os.open(data_path, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(number, fcntl.LOCK_SH)  # waits while it is being removed
        if os.fstat(number).st_nlink > 0:
            return number
    except OSError:  # a file system without locks: then nobody can remove it either
        return number
    os.close(number)
    return None


def keep_fetched(path: Path) -> None:
    """Keeps a file or folder that was fetched from being removed while this process lives."""
    if path not in _KEPT:
        with suppress(OSError):
            _KEPT[path] = hold(path)


def remove_unheld(path: Path) -> bool:
    """Removes what was fetched, with what lies beside it, unless a process keeps it or is fetching it."""
    knows = fcntl is not None
    if not knows:
        return False
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(f"{path}.lock", timeout=0))
            for one in (path.parent, path):  # torchvision's sets are kept together, as their files lie
                number = os.open(one, os.O_RDONLY)
                stack.callback(os.close, number)
                if fcntl is not None:
                    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (Timeout, OSError):
            return False
        Path(f"{path}.json").unlink(missing_ok=True)  # first, so that nobody takes half a set for whole
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    Path(f"{path}.lock").unlink(missing_ok=True)
    return True


def _evict(folder: Path, excess: int) -> bool:
    """Removes entries, the least recently used first, that take ``excess`` bytes or more; all or none."""
    with ExitStack() as locks:
        chosen: list[Path] = []
        for sidecar in sorted(folder.glob("*.json"), key=_last_use):
            if excess <= 0:
                break
            if locks.enter_context(unused_images(sidecar)):
                chosen.append(sidecar)
                excess -= _size(sidecar.with_suffix(".npy"))
        if excess > 0:
            return False
        for sidecar in chosen:
            sidecar.unlink(missing_ok=True)  # first, so that nobody takes half an entry for whole
            sidecar.with_suffix(".npy").unlink(missing_ok=True)
        return True


@contextmanager
def unused_images(sidecar: Path) -> Iterator[bool]:
    """Locks an entry, named by its .json file, against readers and writers; gives whether that was possible."""
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(sidecar.with_suffix(".lock"), timeout=0))
            number = os.open(sidecar.with_suffix(".npy"), os.O_RDONLY)
            stack.callback(os.close, number)
            if fcntl is not None:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unused = fcntl is not None
        except (Timeout, OSError):
            unused = False
        yield unused


def _remove_abandoned(folder: Path) -> None:
    """Removes files of writers that are dead: data without an entry whose lock is free."""
    for path in folder.glob("*.tmp"):
        try:
            with FileLock(folder / f"{path.name.partition('.')[0]}.lock", timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            continue  # its writer is alive


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
