"""Files that others name: regular and bounded, or an error at once."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tlsearch.core.errors import DataError
from tlsearch.core.files import IMAGE_BYTES, open_regular, read_regular, write_atomically
from tlsearch.results.inference.image_inputs import open_image


def test_writers_of_one_number_leave_each_other_s_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two nodes' processes may be: while one syncs, another one writes the same file."""
    path, sync = tmp_path / "file.json", os.fsync

    def between(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        write_atomically(path, "second")
        assert path.read_text() == "second"
        sync(handle)

    monkeypatch.setattr(os, "fsync", between)
    write_atomically(path, "first, and longer")
    assert path.read_text() == "first, and longer" and os.listdir(tmp_path) == ["file.json"]


def test_a_regular_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 7) == b"content"
    with pytest.raises(OSError, match="it has 7 bytes, more than the 6 that are read"):
        open_regular(tmp_path / "file", 6)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent", 6)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "giant"])
def test_nothing_else_is_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    path = tmp_path / "odd.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("odd.png")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)
    with pytest.raises(OSError, match="it is a .*, not a file|it has 1,099,511,627,776 bytes"):
        read_regular(path, IMAGE_BYTES)
    with pytest.raises(DataError, match=r"odd.png: cannot be read: it (is|has)"):  # what `predict` opens
        open_image(path, str(path), 1000, hold=ExitStack())
