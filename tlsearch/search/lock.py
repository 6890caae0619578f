"""One writer per search: a lock on a file of the search's folder, held for the process's life."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from tlsearch.errors import StorageError


class SearchLock:
    """An advisory lock (flock); the system drops it when the process ends, however it ends."""

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
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self._holder()
            os.close(self._handle)
            raise StorageError(f"a search has one writer at a time; {path.parent} is in use by {holder}") from None
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def _holder(self) -> str:
        try:
            holder = json.loads(os.pread(self._handle, 4096, 0))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
            return f"process {holder['pid']} on {holder['host']}, since {since}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def release(self) -> None:
        """Gives the lock back; the file stays, so that two processes never lock two files."""
        os.ftruncate(self._handle, 0)
        os.close(self._handle)
