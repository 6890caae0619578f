"""A disk that fails while the journal is written: the search ends with the reason, and goes on with all it had."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from search_doubles import drive, make_plan

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.search import read_search
from tlsearch.search.study.storage import open_for_writing

FAULTS = {"full": (errno.ENOSPC, False), "read-only": (errno.EROFS, True), "broken": (errno.EIO, True)}
ATTRS = {"search_id": "s", "experiment": "e", "metric": "val_accuracy", "mode": "max"}


class Disk:
    """Takes so many bytes of what ``os.write`` brings, then fails; ``fsync`` and ``ftruncate`` may fail then, too."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int, number: int, *, frozen: bool) -> None:
        self._room, self._number = room, number
        self._write = os.write
        patch.setattr(os, "write", self.write)
        if frozen:
            truncate = os.ftruncate
            patch.setattr(os, "ftruncate", lambda handle, size: self._fail() if self.full else truncate(handle, size))
        self.full = False

    def _fail(self) -> None:
        raise OSError(self._number, os.strerror(self._number))

    def write(self, handle: int, data: Any) -> int:
        fits = min(len(data), self._room)
        if not fits:
            self.full = True
            self._fail()
        self._room -= fits
        return self._write(handle, bytes(data)[:fits])


def told(root: Path) -> list[tuple[Any, ...]]:
    trials = read_search(root).trials
    return [(one.number, one.state, one.reason, one.params, one.best_value, len(one.reports)) for one in trials]


@pytest.mark.parametrize(("number", "frozen"), FAULTS.values(), ids=FAULTS)
def test_a_search_ends_and_goes_on(number: int, frozen: bool, tmp_path: Path) -> None:
    drive(plan := make_plan(tmp_path / "whole" / "s", trials=4))
    whole, size = told(plan.folder.root), plan.folder.journal.stat().st_size
    for place, room in enumerate((0, 50, *range(size // 6, size - 50, size // 6), size - 10)):
        plan = make_plan(tmp_path / str(place) / "s", trials=4)
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, room, number, frozen=frozen)
            with pytest.raises(StorageError, match=rf"{os.strerror(number)}.*`tlsearch resume`") as error:
                drive(plan)
        assert str(plan.folder.journal) in str(error.value)
        content = plan.folder.journal.read_bytes()
        assert len(content) <= room and (frozen or content.endswith(b"\n") or not content)
        before = told(plan.folder.root)
        drive(plan)
        assert told(plan.folder.root) == whole and before[:-1] == whole[: max(0, len(before) - 1)]


def test_half_a_line_that_cannot_be_kept_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SearchFolder(root=tmp_path)
    open_for_writing(folder, attrs=ATTRS).close()
    torn = folder.journal.read_bytes() + b'{"op_code":2,"wor'
    folder.journal.write_bytes(torn)

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="study.journal cannot be written: No space left"):
        open_for_writing(folder, attrs=ATTRS)
    monkeypatch.undo()
    assert folder.journal.read_bytes() == torn and not list(tmp_path.glob("*.torn-*"))
    open_for_writing(folder, attrs=ATTRS).close()


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="lock: No space left"):
        open_for_writing(SearchFolder(root=tmp_path), attrs=ATTRS)
    monkeypatch.undo()
    open_for_writing(SearchFolder(root=tmp_path), attrs=ATTRS).close()


def test_the_end_of_a_journal_cannot_be_lost_unseen(tmp_path: Path) -> None:
    """What its last writer left is noted where it gives back the lock."""
    folder = SearchFolder(root=tmp_path / "s")
    drive(make_plan(folder.root, trials=2))
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole[: whole[:-1].rfind(b"\n") + 1])
    for opened in (lambda: read_search(folder.root), lambda: open_for_writing(folder, attrs=ATTRS)):
        with pytest.raises(StorageError, match=r"study.journal ends after line \d+, and its last writer left"):
            opened()
    folder.lock.unlink()  # as the message says
    assert len(read_search(folder.root).trials) == 2
    folder.journal.unlink()
    assert read_search(folder.root).trials == ()
