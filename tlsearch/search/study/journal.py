"""Optuna's journal with one writer: one write and one fsync per batch, no lock file, no re-reading.

The file has Optuna's own format, so any Optuna can read it. What differs from its
JournalFileBackend: operations of one batch reach the disk together or not at all, what was
appended is not read back from the file, and a failed write leaves whole lines behind.

Each line carries one more key, ``crc32``: of all lines up to and with itself, so that a line that was changed, lost,
doubled or moved does not pass. Lines that other programs have written (Optuna's dashboard, an earlier version) have
none, and are covered by the next that has one.
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from tlsearch.core.codec import parse_json
from tlsearch.core.crash import crash_due, die
from tlsearch.core.errors import StorageError
from tlsearch.search.study.journal_rules import JournalRules

Log = dict[str, Any]

_BOM = b"\xef\xbb\xbf"
_SUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}$')
_SUM_BYTES = len(',"crc32":"01234567"}')


class Journal(BaseJournalBackend):
    """The file behind an Optuna JournalStorage, for its one writer or for a reader's snapshot.

    Attributes:
        num_lines: In the file.
        torn: The file that keeps the half line that the journal ended in; None where it was whole.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Opens the journal; a writer holds the search's lock.

        A half line at the end is what a power cut or a full disk leaves. A reader passes it over: it may be one that
        is being written. A writer cuts it off, since the next append would glue to it, and keeps it in a file beside.

        Raises:
            StorageError: The file cannot be opened, or a line of it is damaged.
        """
        self._path = path
        self._depth = 0
        self._unwritten: list[bytes] = []
        self._crc, self.num_lines = 0, 0
        self._at = 0  # the line that the storage reads
        self.torn: Path | None = None
        if writable:
            for stale in path.parent.glob(f"{path.name}.lock*"):  # Optuna's own
                stale.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY
        try:
            self._handle = os.open(path, flags, 0o644)
        except OSError as error:
            raise StorageError(f"the study {path} cannot be opened: {error.strerror}") from error
        try:
            self._unread: list[Log] = []  # not yet read by the storage
            self._read_file(writable)
        except BaseException:
            self.close()
            raise
        self._first_unread = 0  # its log number

    def storage(self) -> JournalStorage:
        """Optuna's storage of what the journal holds.

        Raises:
            StorageError: Optuna cannot read a line.
        """
        try:
            return JournalStorage(self)
        except Exception as error:  # whatever its replay meets
            raise self._damaged(self._at, f"{type(error).__name__}: {error}") from error

    def read_logs(self, log_number_from: int) -> Iterator[Log]:
        """Called by the storage: the whole file the first time, then what was appended since."""
        done = log_number_from - self._first_unread
        if done > 0:
            del self._unread[:done]
            self._first_unread = log_number_from
        for number, log in enumerate(tuple(self._unread), start=log_number_from + 1):
            self._at = number
            yield log

    def _read_file(self, writable: bool) -> None:
        content = _read_all(self._handle)
        start = len(_BOM) if content.startswith(_BOM) else 0
        rules, signing = JournalRules(), set()
        while start < len(content):
            end = content.find(b"\n", start)
            line = (content[start:end] if end >= 0 else content[start:]).removesuffix(b"\r")  # of an editor
            body, crc = _split(line)
            running = zlib.crc32(body, self._crc)
            if end < 0 and crc != running:
                break  # half a line
            self.num_lines += 1
            try:
                log = parse_json(line, "it", dict)
                if crc not in (None, running):
                    raise ValueError("this line, or one before it, was changed, lost, doubled or moved")
                rules.check(log)
                if crc is None and log["worker_id"] in signing:
                    raise ValueError("it has no checksum, as other lines of its writer have")
            except ValueError as error:
                raise self._damaged(self.num_lines, f"{error}: {line[:80]!r}") from None
            log.pop("crc32", None)
            self._unread.append(log)
            self._crc = running
            if crc is not None:
                signing.add(log["worker_id"])
            start = end + 1 if end >= 0 else len(content)
        self._size = len(content)
        if writable and start < len(content):
            self._cut_off(content[start:], start)
        elif writable and content and not content.endswith(b"\n"):
            self._append(b"\n")

    def _damaged(self, line: int, why: str) -> StorageError:
        remedy = f"; or keep the lines before it (`head -n {line - 1}`), to go on from there" if line > 1 else ""
        return StorageError(f"line {line} of the study {self._path} is damaged: {why}; put back a copy of it{remedy}")

    def _cut_off(self, rest: bytes, whole: int) -> None:
        name = f"{self._path.name}.torn-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6}"
        copy = self._path.with_name(name)
        with self._writing():
            try:
                copy.write_bytes(rest)
            except OSError:
                copy.unlink(missing_ok=True)
                raise
            os.ftruncate(self._handle, whole)
            os.fsync(self._handle)
        self.torn, self._size = copy, whole

    def append_logs(self, logs: Iterable[Log]) -> None:
        """Called by the storage; on disk when it returns, or at the end of the batch."""
        for log in logs:
            body = json.dumps(log, separators=(",", ":")).encode()
            self._unread.append(json.loads(body))
            self._unwritten.append(body)
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
        crc, lines = self._crc, []
        for body in self._unwritten:
            crc = zlib.crc32(body[:-1], crc)
            lines.append(b'%b,"crc32":"%08x"}\n' % (body[:-1], crc))
        self._unwritten.clear()
        if lines:
            self._append(b"".join(lines))
            self._crc, self.num_lines = crc, self.num_lines + len(lines)

    def _append(self, data: bytes) -> None:
        if os.fstat(self._handle).st_size != self._size:
            raise StorageError(f"a study has one writer; another program has written to {self._path}")
        if crash_due("inside_append"):
            os.write(self._handle, data[: max(1, len(data) - 20)])
            die()
        with self._writing():
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
                os.fsync(self._handle)
            except OSError:
                with suppress(OSError):  # no half line stays; else the next start cuts it off
                    os.ftruncate(self._handle, self._size)
                raise
        self._size += len(data)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"the study {self._path} cannot be written: {error.strerror}; make room, or make the disk "
                "writable, then go on with `tlsearch resume`"
            ) from error

    def close(self) -> None:
        """Closes the file; nothing is left unwritten."""
        os.close(self._handle)


def _split(line: bytes) -> tuple[bytes, int | None]:
    """A line without its checksum and closing brace, and the checksum; None where it has none."""
    found = _SUM.search(line, max(0, len(line) - _SUM_BYTES))
    return (line[: found.start()], int(found[1], 16)) if found else (line.removesuffix(b"}"), None)


def _read_all(handle: int) -> bytes:
    parts, size = [], 0
    while part := os.pread(handle, 2**30, size):
        parts.append(part)
        size += len(part)
    return b"".join(parts)
