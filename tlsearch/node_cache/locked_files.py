"""Files of a node's cache: where they are, how they are written, and their locks.

A new file is written beside its place and renamed. The writer locks ``<path>.lock``; a reader holds a shared lock on
the data while it uses them. The kernel releases both when a process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tlsearch.core.types import CacheSpec
from tlsearch.core.user_folders import CACHE_VARIABLE, own_folder, user_cache


def cache_directory(cache: CacheSpec, *, write: bool = True) -> Path:
    """The folder of this node's stores, created with mode 0700 where it is not there; not so without ``write``.

    ``cache.directory``, else the environment variable TLSEARCH_CACHE_DIR, else ``tlsearch`` in the user's
    cache folder.

    Raises:
        StorageError: It cannot be created or written.
    """
    return own_folder("cache", CACHE_VARIABLE, _default, chosen=cache.directory, write=write)


def _default() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tlsearch"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tlsearch"
    return user_cache() / "tlsearch"


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


_KEPT: dict[Path, int | None] = {}


@contextmanager
def writing(path: Path, timeout_s: float = -1, *, meanwhile: Callable[[], object] = bool) -> Iterator[None]:
    """Makes the folder of a path and locks the path for its one writer; filelock.Timeout where another writes it.

    Args:
        timeout_s: Below 0 without end.
        meanwhile: Called once where another writes it now, before this one waits.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(f"{path}.lock", timeout=timeout_s)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        meanwhile()
        held = lock.acquire()
    with held:
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
