"""Optuna's journal with one writer: one write and one fsync per batch, no lock file, no re-reading.

The file has Optuna's own format, so any Optuna can read it. What differs from its
JournalFileBackend: operations of one batch reach the disk together or not at all, what was
appended is not read back from the file, and a failed write leaves whole lines behind.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from tlsearch.crash import crash_due, die
from tlsearch.errors import StorageError

Log = dict[str, Any]


def repair_journal(path: Path) -> Path | None:
    """Cuts the journal back to its last newline and removes stale locks; the caller holds the search's lock.

    A half line at the end is what a power cut or a full disk leaves; the next append would glue to
    it and the study could never be opened again.

    Returns:
        The file that keeps what was cut off; None where the journal was whole.
    """
    for stale in path.parent.glob(f"{path.name}.lock*"):
        stale.unlink(missing_ok=True)
    if not path.exists():
        return None
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return None
    copy = path.with_name(f"{path.name}.torn-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}")
    copy.write_bytes(content[whole:])
    with open(path, "r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return copy


class Journal(BaseJournalBackend):
    """The file behind an Optuna JournalStorage, for its one writer or for a reader's snapshot."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Opens the journal; a writer holds the search's lock and has repaired it.

        Raises:
            StorageError: The file cannot be opened, or a line of it is damaged.
        """
        self._path = path
        self._depth = 0
        self._unwritten: list[bytes] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
        try:
            self._handle = os.open(path, flags, 0o644)
        except OSError as error:
            raise StorageError(f"the study {path} cannot be opened: {error.strerror}") from error
        self._size = os.fstat(self._handle).st_size
        try:
            self._unread: list[Log] = list(self._read_file())  # not yet read by the storage
        except StorageError:
            self.close()
            raise
        self._first_unread = 0  # its log number

    def read_logs(self, log_number_from: int) -> Iterator[Log]:
        """Called by the storage: the whole file the first time, then what was appended since."""
        done = log_number_from - self._first_unread
        if done > 0:
            del self._unread[:done]
            self._first_unread = log_number_from
        yield from tuple(self._unread)

    def _read_file(self) -> Iterator[Log]:
        """All whole lines; a reader beside a writer may see half a line at the end."""
        content = os.pread(self._handle, self._size, 0)
        lines = content.split(b"\n")[:-1]
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError:
                raise StorageError(f"line {number} of the study {self._path} is damaged: {line[:80]!r}") from None

    def append_logs(self, logs: Iterable[Log]) -> None:
        """Called by the storage; on disk when it returns, or at the end of the batch."""
        for log in logs:
            line = json.dumps(log, separators=(",", ":"))
            self._unread.append(json.loads(line))
            self._unwritten.append(line.encode() + b"\n")
        if not self._depth:
            self._write()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Operations inside become durable together, at the end; also where the body raises.

        Raises:
            StorageError: They could not be written; the study on disk is as before the batch.
        """
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._write()

    def _write(self) -> None:
        data = b"".join(self._unwritten)
        self._unwritten.clear()
        if not data:
            return
        if os.fstat(self._handle).st_size != self._size:
            raise StorageError(f"a study has one writer; another program has written to {self._path}")
        if crash_due("inside_append"):
            os.write(self._handle, data[: max(1, len(data) - 20)])
            die()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except OSError as error:
            self._cut_back()
            raise StorageError(
                f"the study {self._path} cannot be written: {error.strerror}; make room, or make the disk "
                "writable, then go on with `tlsearch resume`"
            ) from error
        self._size += len(data)

    def _cut_back(self) -> None:
        """After a failed write: no half line stays, as far as the disk still lets us."""
        try:
            os.ftruncate(self._handle, self._size)
        except OSError:
            pass  # repair_journal does it at the next start

    def close(self) -> None:
        """Closes the file; nothing is left unwritten."""
        os.close(self._handle)
