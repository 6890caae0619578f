"""What a library does with a data set: no connection, no file that is not regular; other threads are left alone."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from web_site import Site

from tlsearch.data.libraries.confined import confined


def connect(site: Site) -> None:
    socket.create_connection(("127.0.0.1", int(site.port)), 5).close()


def test_nothing_is_connected_to_inside(site: Site) -> None:
    connect(site)
    with confined():
        with pytest.raises(ConnectionRefusedError, match="nothing is fetched while a data set is read"):
            connect(site)
        with pytest.raises(ConnectionRefusedError):
            socket.getaddrinfo("localhost", 80)
        with confined(False):  # our own fetcher
            connect(site)
        other = threading.Thread(target=connect, args=(site,))
        other.start()
        other.join()
    connect(site)


@pytest.mark.timeout(30)
def test_only_regular_files_are_opened_inside(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    os.mkfifo(tmp_path / "pipe")
    with confined():
        assert (tmp_path / "file").read_text() == "content"
        (tmp_path / "new").write_text("made")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new", "pipe"]
        for path in (tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(OSError, match="it is a .*, not a file"):
                path.open("rb")
            with pytest.raises(OSError, match="it is a .*, not a file"):
                os.open(path, os.O_RDONLY)
    with open("/dev/zero", "rb") as file:
        assert file.read(1) == b"\0"
