"""One writer per search: a lock on a file of the search's folder, taken before anything of the search is written."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tlsearch.core.codec import from_plain, parse_json, read_json
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.core.text import command as shown

_LINES = "study_lines"
_TRIES, _PAUSE_S = 10, 0.05  # a look at the lock holds it for an instant; its holder writes its name an instant later


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a search's lock.

    Attributes:
        since: When it took the lock, Unix time in seconds; tells two starts in one process apart.
        command: What it holds the lock for, ``resume``, ``promote``, ...; empty while it runs the search's trials.
    """

    pid: int
    host: str
    since: float
    command: str = ""

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        by = f" (tlsearch {self.command})" if self.command else ""
        return f"process {self.pid} on {self.host}, since {since}{by}"

    def plain(self) -> dict[str, Any]:
        """For JSON; a command that is empty is left out, as earlier versions know none."""
        return {name: value for name, value in asdict(self).items() if name != "command" or value}


class SearchLock:
    """An advisory lock (flock); the system drops it when the process ends, however it ends.

    Attributes:
        holder: This process.
        study_lines: How many lines the study's journal has; stays in the file when the lock is given back.
    """

    def __init__(self, path: Path, command: str = "") -> None:
        """Takes the lock.

        Args:
            path: The lock's file; its folder exists.
            command: See ``Holder``.

        Raises:
            StorageError: Another process holds it, or the folder is gone or cannot be written.
        """
        self._path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by Ray's processes
        except OSError as error:
            raise StorageError(f"a search's folder must be writable; {path}: {error.strerror}") from error
        if not (_taken(self._handle) and self._is_in_place()):
            holder = _named(self._handle)
            os.close(self._handle)
            raise StorageError(_in_use(path.parent, holder))
        crash_point("lock_taken")
        self.study_lines = study_lines(path)
        self._owner = Holder(pid=os.getpid(), host=socket.gethostname(), since=time.time(), command=command)
        self._runs = False
        try:
            self._write(self._owner.plain())
        except OSError as error:
            os.close(self._handle)
            raise StorageError(f"a search's folder must be writable; {path}: {error.strerror}") from error

    @property
    def holder(self) -> Holder:
        """This process, as the lock names it now."""
        return replace(self._owner, command="") if self._runs else self._owner

    def run(self) -> SearchLock:
        """From now to the next ``release`` this process runs the search, and keeps the lock after that."""
        self._runs = True
        self._write(self.holder.plain())
        return self

    def release(self) -> None:
        """Ends the run, if there is one; else gives the lock back.

        The file stays, so that two processes never lock two files.
        """
        runs, self._runs = self._runs, False
        try:
            self._write(self._owner.plain() if runs else {_LINES: self.study_lines})
        except OSError:
            pass  # it names a process that has ended, as after a crash
        finally:
            if not runs:
                os.close(self._handle)

    def _write(self, plain: object) -> None:
        text = json.dumps(plain).encode()
        os.pwrite(self._handle, text, 0)
        os.ftruncate(self._handle, len(text))

    def _is_in_place(self) -> bool:
        """False where the folder was removed or renamed while this process waited for the lock."""
        try:
            return os.path.samestat(os.fstat(self._handle), os.stat(self._path))
        except OSError:
            return False


def study_lines(path: Path) -> int:
    """How many lines the last process that held the lock left in the study's journal; 0 where it was killed."""
    try:
        found = read_json(path).get(_LINES)
    except (OSError, ValueError):
        return 0
    return found if isinstance(found, int) else 0


def _in_use(folder: Path, holder: Holder | None) -> str:
    advice = "wait until it has ended, then try again"
    if holder is not None and not holder.command:
        advice = (
            f"{shown('status', folder.name)} shows what it does, {shown('stop', folder.name)} ends it; then try again"
        )
    return f"a search has one writer at a time; {folder} is in use by {holder or 'another process'}: {advice}"


@contextmanager
def holding(directory: Path, command: str) -> Iterator[SearchLock]:
    """This process alone writes to a search while the body runs.

    Args:
        directory: The search's folder.
        command: What for; see ``Holder``.

    Raises:
        StorageError: Another process holds the lock, or the folder is gone or cannot be written.
    """
    lock = SearchLock(SearchFolder(root=directory).lock, command)
    try:
        yield lock
    finally:
        lock.release()


def holder_of(path: Path) -> Holder | None:
    """The process that holds the lock now; None where the lock is free, whatever the file says.

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


def runner_of(path: Path) -> Holder | None:
    """The process that runs the search's trials now; errors as of ``holder_of``."""
    holder = holder_of(path)
    return holder if holder is not None and not holder.command else None


def is_running(path: Path) -> bool:
    """Whether a process runs the search's trials now, also where it does not say which."""
    try:
        return runner_of(path) is not None
    except StorageError:
        return True


def _taken(handle: int) -> bool:
    """Takes the lock; False where another process has it for more than a look."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
