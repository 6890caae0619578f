"""A store of arrays in the cache of a node: each computed once, shared by all processes, evicted when unused.

An entry is named by the digest of its key and has three files::

    <name>.bin    the array, raw
    <name>.json   its key, shape, size and checksum: written last, the commit point; its mtime is the last use
    <name>.lock   held by the one writer

An entry that is not whole is built again. One that some process has mapped is never evicted.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tlsearch.node_cache.entry_files import Entry, checksum_of, entries, map_array, num_bytes_of
from tlsearch.node_cache.locked_files import draft_prefix, remove_drafts, temporary_file, unused, writing

# What this process has mapped, by path, the last used at the end.
_OPEN: OrderedDict[Path, NDArray[Any]] = OrderedDict()
_OPEN_LOCK = Lock()


class NoRoomError(Exception):
    """An entry does not fit into the store's budget, or all that could make room for it is in use."""

    def __init__(self, needed_bytes: int, budget_bytes: int) -> None:
        super().__init__(f"{needed_bytes / 1e9:.3g} GB do not fit into {budget_bytes / 1e9:.3g} GB")
        self.needed_bytes, self.budget_bytes = needed_bytes, budget_bytes


@dataclass(frozen=True, kw_only=True)
class Content:
    """What an entry is to hold; ``rows`` yields parts of the array, C-contiguous, in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: Iterable[NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Store:
    """One kind of entries.

    Attributes:
        folder: Of its own.
        budget_gb: What its entries may take; None for ``share`` of the free disk, its own entries counted as free.
        max_open: Arrays that a process keeps mapped between uses.
        wait_s: How long to wait for another writer of an entry; below 0 without end.
    """

    folder: Path
    budget_gb: float | None = None
    share: float = 0.25
    max_open: int = 0
    wait_s: float = -1

    def find(self, key: Mapping[str, Any]) -> NDArray[Any] | None:
        """Maps an entry, copy-on-write; None if it is missing or damaged. It stays while the array is in use."""
        path = self._path(key)
        with _OPEN_LOCK:
            if path in _OPEN:
                _OPEN.move_to_end(path)
                with suppress(OSError):
                    os.utime(f"{path}.json")
                return _OPEN[path]
        array = map_array(path)
        if array is None or self.max_open == 0:
            return array
        with _OPEN_LOCK:
            array = _OPEN.setdefault(path, array)
            mine = [one for one in _OPEN if one.parent == self.folder]
            for oldest in mine[: -self.max_open]:
                del _OPEN[oldest]
        return array

    def open(
        self,
        key: Mapping[str, Any],
        content: Callable[[], Content],
        *,
        num_alike: int = 1,
        meanwhile: Callable[[], object] = bool,
    ) -> tuple[NDArray[Any], bool]:
        """Maps an entry, built first where there is none; gives whether this call built it.

        Args:
            key: Plain values: all that the array depends on.
            content: Called while the entry is locked.
            num_alike: Entries of this size that are read in turn: there must be room for all.
            meanwhile: Called where another process builds the entry, before this one waits for it.

        Raises:
            NoRoomError: It does not fit.
            Timeout: Another process has been writing it for too long.
            OSError: It cannot be written.
        """
        found = self.find(key)
        if found is not None:
            return found, False
        path = self._path(key)
        with writing(path, self.wait_s, meanwhile=meanwhile):
            found = self.find(key)  # another process may have built it while we waited
            if found is not None:
                return found, False
            self._build(path, key, content(), num_alike)
            found = self.find(key)
        if found is None:
            raise OSError(f"{path}.bin was damaged or removed right after it was written")
        return found, True

    def budget_bytes(self) -> int:
        """What the store may hold, never more than fits."""
        free = shutil.disk_usage(self.folder).free + self._held_bytes()
        return int(free * self.share) if self.budget_gb is None else min(int(self.budget_gb * 1e9), free)

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]

    def _build(self, path: Path, key: Mapping[str, Any], content: Content, num_alike: int) -> None:
        # A JSON left from an entry whose data do not fit it must not vouch for the new data's first moments.
        Path(f"{path}.json").unlink(missing_ok=True)
        remove_drafts(path)
        num_bytes = math.prod(content.shape) * content.dtype.itemsize
        checksum = checksum_of(content.shape, content.dtype.name)
        with temporary_file(path) as temporary:
            self._reserve(temporary, num_bytes, num_alike)
            with open(temporary, "r+b") as file:
                for rows in content.rows:
                    file.write(rows.data)
                    checksum = zlib.crc32(rows.data, checksum)
                assert file.tell() == num_bytes, f"{file.tell()} bytes are not those of {content.shape}"
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, f"{path}.bin")
        meta = {"key": key, "shape": content.shape, "dtype": content.dtype.name, "crc32": checksum}
        with temporary_file(path) as temporary:
            with open(temporary, "w", encoding="utf-8") as text:
                json.dump(meta, text, indent=1)
                text.flush()
                os.fsync(text.fileno())  # after a power cut it must not stand there without the data
            os.replace(temporary, f"{path}.json")

    def _reserve(self, temporary: Path, num_bytes: int, num_alike: int) -> None:
        """Makes room for a new entry, and lets its empty file have its size at once: others count it from then on."""
        with FileLock(self.folder / "room.lock"):
            self._remove_abandoned()
            budget = self.budget_bytes()
            if num_bytes * num_alike > budget:
                raise NoRoomError(num_bytes * num_alike, budget)
            excess = self._held_bytes() + num_bytes - budget
            if not self._evict(excess):
                close(self.folder)  # what this process has mapped but no longer uses can go
                if not self._evict(excess):
                    raise NoRoomError(num_bytes, budget)
            os.truncate(temporary, num_bytes)

    def _evict(self, excess: int) -> bool:
        """Removes unused entries, the least recently used first, that take ``excess`` bytes or more; all or none."""
        with ExitStack() as locks:
            chosen: list[Entry] = []
            for entry in sorted(entries(self.folder), key=lambda entry: entry.last_used):
                if excess <= 0:
                    break
                if locks.enter_context(unused(entry.path, *entry.data)):
                    chosen.append(entry)
                    excess -= entry.num_bytes
            if excess > 0:
                return False
            for entry in chosen:
                entry.unlink()
            return True

    def _held_bytes(self) -> int:
        """What the entries take, with those that are being written."""
        return sum(num_bytes_of(path) for path in self.folder.glob("*") if path.suffix not in (".json", ".lock"))

    def _remove_abandoned(self) -> None:
        """Removes drafts of writers that are dead: their lock is free."""
        locks = {draft_prefix(lock.with_suffix("")): lock for lock in self.folder.glob("*.lock")}
        for draft in self.folder.glob(".*.tmp"):
            lock = locks.get(f".{draft.name.split('.')[1]}.")
            with suppress(Timeout), ExitStack() as stack:
                if lock is not None:
                    stack.enter_context(FileLock(lock, timeout=0))
                draft.unlink(missing_ok=True)


def mapped_entry(address: int) -> Path | None:
    """The entry that this process keeps mapped at an address of memory; None where there is none."""
    with _OPEN_LOCK:
        return next((path for path, array in _OPEN.items() if array.ctypes.data == address), None)


def close(folder: Path | None = None) -> None:
    """Forgets this process's mapped entries, of one store or of all; arrays in use stay valid."""
    with _OPEN_LOCK:
        for path in [path for path in _OPEN if folder in (None, path.parent)]:
            del _OPEN[path]
