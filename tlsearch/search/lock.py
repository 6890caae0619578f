"""One writer per search: a lock on a file of the search's folder, held for the process's life."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tlsearch.codec import from_plain, parse_json, read_json
from tlsearch.crash import crash_point
from tlsearch.errors import StorageError
from tlsearch.search.folder import SearchFolder

_LINES = "study_lines"
_TRIES, _PAUSE_S = 10, 0.05  # a look at the lock holds it for an instant; its holder writes its name an instant later


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that runs a search; ``since`` tells two starts in one process apart."""

    pid: int
    host: str
    since: float

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


class SearchLock:
    """An advisory lock (flock); the system drops it when the process ends, however it ends.

    Attributes:
        holder: This process.
        study_lines: How many lines the study's journal has; stays in the file when the lock is given back.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock; makes the folder where it is missing.

        Raises:
            StorageError: Another process holds it, or the folder cannot be written.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by Ray's processes
        except OSError as error:
            raise StorageError(f"a search's folder must be writable; {path}: {error.strerror}") from error
        if not _taken(self._handle, fcntl.LOCK_EX):
            holder = _named(self._handle) or "another process"
            os.close(self._handle)
            raise StorageError(f"a search has one writer at a time; {path.parent} is in use by {holder}") from None
        crash_point("lock_taken")
        self.study_lines = study_lines(path)
        self.holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time())
        try:
            self._write(asdict(self.holder))
        except OSError as error:
            os.close(self._handle)
            raise StorageError(f"a search's folder must be writable; {path}: {error.strerror}") from error

    def release(self) -> None:
        """Gives the lock back; the file stays, so that two processes never lock two files."""
        try:
            self._write({_LINES: self.study_lines})
        except OSError:
            pass  # it names a process that has ended, as after a crash
        finally:
            os.close(self._handle)

    def _write(self, plain: object) -> None:
        text = json.dumps(plain).encode()
        os.pwrite(self._handle, text, 0)
        os.ftruncate(self._handle, len(text))


def study_lines(path: Path) -> int:
    """How many lines the last process that held the lock left in the study's journal; 0 where it was killed."""
    try:
        found = read_json(path).get(_LINES)
    except (OSError, ValueError):
        return 0
    return found if isinstance(found, int) else 0


@contextmanager
def holding(directory: Path) -> Iterator[None]:
    """No process runs the search while the body does.

    Args:
        directory: The search's folder.

    Raises:
        StorageError: One does already.
    """
    lock = SearchLock(SearchFolder(root=directory).lock)
    try:
        yield
    finally:
        lock.release()


def holder_of(path: Path) -> Holder | None:
    """The process that holds the lock now; None where nobody does, whatever the file says.

    Raises:
        StorageError: The lock is held, but its holder does not say who it is.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        for _ in range(_TRIES):
            if _free(handle):
                return None
            holder = _named(handle)
            if holder is not None:
                return holder
            time.sleep(_PAUSE_S)  # it has the lock and is about to write its name
    finally:
        os.close(handle)
    raise StorageError(f"a process holds {path} without saying which it is")


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now, also where it does not say which."""
    try:
        return holder_of(path) is not None
    except StorageError:
        return True


def _taken(handle: int, kind: int) -> bool:
    """Takes the lock; False where another process has it for more than a look."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError:
            continue
        return True
    return False


def _free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(handle, fcntl.LOCK_UN)
    return True


def _named(handle: int) -> Holder | None:
    try:
        return from_plain(Holder, parse_json(os.pread(handle, 4096, 0), "a lock", dict))
    except (OSError, ValueError):
        return None
