"""The journal: whole or cut back, one writer, one batch at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.search.study.journal import Journal
from tlsearch.search.study.lock import SearchLock
from tlsearch.search.study.storage import open_for_reading, open_for_writing
from tlsearch.search.study.study import Study

ATTRS = {"search_id": "s", "experiment": "e", "metric": "val_accuracy", "mode": "max"}


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    return SearchFolder(root=tmp_path / "s")


def write_study(folder: SearchFolder) -> Study:
    return open_for_writing(folder, attrs=ATTRS)


def test_any_optuna_reads_the_journal(folder: SearchFolder) -> None:
    study = write_study(folder)
    study.enqueue([{"x": 1.5}])
    study.close()
    storage = JournalStorage(JournalFileBackend(str(folder.journal)))
    loaded = optuna.load_study(study_name="s", storage=storage)
    assert [trial.state for trial in loaded.trials] == [TrialState.WAITING]
    assert loaded.user_attrs == ATTRS


def test_what_another_optuna_writes_between_starts_is_kept(folder: SearchFolder) -> None:
    write_study(folder).close()
    storage = JournalStorage(JournalFileBackend(str(folder.journal)))  # as Optuna's dashboard does
    storage.set_study_system_attr(0, "dashboard:note", "good")
    study = write_study(folder)
    study.enqueue([{"x": 1.5}, {"x": 2.5}])
    study.close()
    again = open_for_reading(folder)
    assert again is not None and len(again.trials()) == 2
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join(line.replace(b"good", b"evil") for line in lines))
    with pytest.raises(StorageError, match=f"line {len(ATTRS) + 3} of the study"):  # the next one covers it
        open_for_reading(folder)
    own = re.sub(rb',"crc32":"[0-9a-f]{8}"', b"", lines[-1])
    folder.journal.write_bytes(b"".join([*lines[:-1], own]))
    with pytest.raises(StorageError, match="it has no checksum, as other lines of its writer have"):
        open_for_reading(folder)


def test_half_a_line_is_cut_off_and_kept(folder: SearchFolder) -> None:
    study = write_study(folder)
    study.enqueue([{"x": 1.5}])
    study.close()
    whole = folder.journal.read_bytes()
    folder.journal.write_bytes(whole + b'{"op_code":4,"worker')
    study = write_study(folder)
    assert folder.journal.read_bytes() == whole
    (copy,) = folder.root.glob("study.journal.torn-*")
    assert copy.read_bytes() == b'{"op_code":4,"worker'
    study.enqueue([{"x": 2.5}])  # the next append does not glue to it
    study.close()
    again = open_for_reading(folder)
    assert again is not None and len(again.trials()) == 2


@pytest.mark.parametrize("num_lines", range(1, len(ATTRS) + 1))
def test_a_study_whose_making_was_torn_is_made_whole(folder: SearchFolder, num_lines: int) -> None:
    write_study(folder).close()
    whole = folder.journal.read_bytes().splitlines(keepends=True)
    assert len(whole) == 1 + len(ATTRS)
    folder.journal.write_bytes(b"".join(whole[:num_lines]) + whole[num_lines][:9])
    folder.lock.unlink()  # it counts the lines once the study is open
    write_study(folder).close()
    found = open_for_reading(folder)
    assert found is not None and dict(found.attrs) == ATTRS


def test_a_reader_beside_a_writer_ignores_half_a_line(folder: SearchFolder) -> None:
    study = write_study(folder)
    study.enqueue([{"x": 1.5}])
    with open(folder.journal, "ab") as file:
        file.write(b'{"op_code"')
    reader = open_for_reading(folder)
    assert reader is not None and len(reader.trials()) == 1
    assert folder.journal.read_bytes().endswith(b'{"op_code"')  # a reader repairs nothing


def test_a_damaged_line_is_named(folder: SearchFolder) -> None:
    write_study(folder).close()
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join([lines[0], b"{broken}\n", *lines[1:]]))
    with pytest.raises(StorageError, match=r"line 2 of the study .*broken"):
        write_study(folder)
    SearchLock(folder.lock).release()  # the failed opening has given it back


def test_stale_locks_of_optuna_are_removed(folder: SearchFolder) -> None:
    write_study(folder).close()
    stale = folder.root / "study.journal.lock"
    stale.symlink_to(folder.journal)
    write_study(folder).close()
    assert not stale.is_symlink()


def test_a_second_writer_is_told_who_holds_the_study(folder: SearchFolder) -> None:
    study = write_study(folder)
    script = (
        "import sys; from pathlib import Path; from tlsearch.core.layout import SearchFolder\n"
        "from tlsearch.search.study.storage import open_for_writing\n"
        f"open_for_writing(SearchFolder(root=Path({str(folder.root)!r})), attrs={ATTRS!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"is in use by process {os.getpid()} on" in done.stderr.splitlines()[-1]
    assert "StorageError" in done.stderr.splitlines()[-1]
    study.close()
    write_study(folder).close()


def test_a_batch_reaches_the_disk_together(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", writable=True)
    with journal.batch():
        journal.append_logs([created("a")])
        with journal.batch():
            journal.append_logs([created("b")])
        assert (tmp_path / "j").read_bytes() == b""
    assert [json.loads(line)["study_name"] for line in (tmp_path / "j").read_text().splitlines()] == ["a", "b"]
    assert list(journal.read_logs(0)) == [created("a"), created("b")]
    assert list(journal.read_logs(1)) == [created("b")]
    journal.append_logs([created("c")])
    assert list(journal.read_logs(2)) == [created("c")]
    assert list(Journal(tmp_path / "j", writable=False).read_logs(0)) == [created(name) for name in "abc"]


def test_another_programs_writing_is_noticed(folder: SearchFolder) -> None:
    study = write_study(folder)
    with open(folder.journal, "ab") as file:
        file.write(b"{}\n")
    with pytest.raises(StorageError, match="another program has written"):
        study.enqueue([{"x": 1.0}])


def test_a_full_disk_leaves_whole_lines(folder: SearchFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    study = write_study(folder)
    before = folder.journal.read_bytes()
    real, calls = os.write, []

    def full(handle: int, data: bytes) -> int:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, bytes(data)[:10])  # a part still fits

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="cannot be written: No space left"):
        study.enqueue([{"x": 1.0}])
    monkeypatch.undo()
    assert len(calls) == 2 and folder.journal.read_bytes() == before
    study.close()
    write_study(folder).close()


def test_an_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="must be writable"):
        open_for_writing(SearchFolder(root=tmp_path / "file" / "s"), attrs=ATTRS)


def created(name: str) -> dict[str, Any]:
    """Optuna's record of a new study."""
    return {"op_code": 0, "worker_id": "w", "study_name": name, "directions": [2]}
