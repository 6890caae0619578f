"""A web server on this machine that plays the faults of real ones."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Site:
    """Files by path, faults to play first, addresses that lead on, and what was asked.

    A fault is a status; ``cut`` ends the connection in the middle, ``drip`` sends a byte now and then for ever,
    ``silent head`` the same before the file begins.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.leads: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.faults: list[str | int] = []
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        self.address = ""
        self.closed = threading.Event()

    @property
    def port(self) -> str:
        return self.address.rpartition(":")[2]

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        self.credentials.append(handler.headers.get("Authorization"))
        fault = self.faults.pop(0) if self.faults else None
        content = self.files.get(handler.path)
        if fault == "silent head":
            self._drip(handler, b"HTTP/1.1 200 OK\r\nX-Long: ")
        elif handler.path in self.leads:
            handler.send_response(302)
            handler.send_header("Location", self.leads[handler.path])
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
        elif isinstance(fault, int) or content is None:
            handler.send_error(fault if isinstance(fault, int) else 404)
        elif fault == "drip":
            handler.send_response(200)
            handler.end_headers()
            self._drip(handler, b"")
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2] if fault == "cut" else content)

    def _drip(self, handler: http.server.BaseHTTPRequestHandler, first: bytes) -> None:
        with suppress(OSError):
            handler.wfile.write(first)
            while not self.closed.wait(0.02):
                handler.wfile.write(b"x")


@contextmanager
def web_site(host: str = "127.0.0.1") -> Iterator[Site]:
    """A site that answers on every address of this machine, and calls itself by ``host``."""
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.answer(self)

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    site.address = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.closed.set()
        server.shutdown()
        thread.join()
        server.server_close()
