"""Temporary folders: gone with the body that uses them, and after a death with the next one's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tlsearch.core.user_folders import HELD, drop_ended, held, scratch_folder

_DIES = """
import os, sys
from pathlib import Path
from tlsearch.core.user_folders import held, scratch_folder
if sys.argv[1] == "scratch":
    with scratch_folder("dead") as folder:
        (folder / "content").write_text("x")
        os.kill(os.getpid(), 9)
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_what_a_killed_process_left_goes_with_the_next_one(temporary: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _DIES, "scratch"], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    assert (left / "files" / "content").is_file() and (left / HELD).is_file()
    with scratch_folder("one") as first, scratch_folder("two") as second:
        assert not left.exists() and first.is_dir() and second.is_dir()
        assert list(first.iterdir()) == []  # what is made from it holds nothing of ours
    assert list(temporary.iterdir()) == []


def test_the_folder_goes_where_the_body_raises(temporary: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder("one"):
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


def test_only_ended_folders_with_our_mark_are_dropped(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"session_{number}").mkdir()
    for number in (0, 1, 2, 3):
        with held(tmp_path / f"session_{number}"):
            pass
    (tmp_path / "session_latest").symlink_to("session_0")
    with subprocess.Popen(
        [sys.executable, "-c", _DIES, str(tmp_path / "session_4")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == b"held\n"
        drop_ended(tmp_path, "session_*", keep=2)
        assert {path.name[-1] for path in tmp_path.iterdir()} == {"2", "3", "4", "5", "t"}  # 5 has no mark: another's
        os.kill(running.pid, signal.SIGKILL)
    drop_ended(tmp_path, "session_*", keep=2)
    assert {path.name[-1] for path in tmp_path.iterdir()} == {"3", "4", "5", "t"}
