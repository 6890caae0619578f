"""One attempt to fetch a file: where it may connect to, and how long it may take.

A redirection leads neither from https to http nor, from a public host, to an address of this machine or its network:
such an address is connected to only where the user's own configuration names it. Names are resolved once: the address
that was looked at is the one that is connected to. A host that sends slowly is given up by its average rate.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from tlsearch.core import __version__

TIMEOUT_S = 30.0  # of one answer of the network
GRACE_S = 60.0  # before the average rate counts
MIN_BYTES_PER_S = 20_000.0
_MAX_REDIRECTIONS = 5
REDIRECTED = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedError(OSError):
    """What was sent, or where an address led, is not taken; another attempt would not help."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one file: its bytes, and the seconds that it may take in all."""

    max_bytes: int
    total_s: float


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query (signatures)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


@dataclass(kw_only=True)
class Watch:
    """One attempt: where it may connect to, and until when it may take."""

    url: str
    limits: Limits
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    expired: bool = False
    host: str = ""
    public_only: bool = False
    sock: socket.socket | None = None

    def left_s(self) -> float:
        """Seconds until it is given up."""
        allowed = min(self.limits.total_s, GRACE_S + self.received / MIN_BYTES_PER_S)
        return allowed - (time.monotonic() - self.began)

    def check(self) -> None:
        """Raises RefusedError where the time is over."""
        if self.expired or self.left_s() <= 0:
            took = time.monotonic() - self.began
            raise RefusedError(f"{shown(self.url)} was given up: {self.received:,} bytes came in {took:.0f} s")

    @contextmanager
    def follow(self, headers: Mapping[str, str]) -> Iterator[tuple[HTTPResponse, str]]:
        """Opens the address, or where it leads; and the sha256 that the first host says of the file."""
        url, sha256 = self.url, ""
        own = _is_private(urlsplit(url).hostname or "")
        for _ in range(_MAX_REDIRECTIONS + 1):
            try:
                with self.ask(url, headers) as response:
                    yield response, sha256
                return
            except HTTPError as error:
                error.close()
                target = error.headers.get("Location")
                if error.code not in REDIRECTED or not target:
                    raise
                # as the Hugging Face hub says it of the file that it points to
                tag = (error.headers.get("X-Linked-Etag") or "").strip('"')
                sha256 = sha256 or (tag if url == self.url and len(tag) == 64 else "")
                before, url = url, urljoin(url, target)
            self._check_step(before, url, own)
            if urlsplit(url).netloc != urlsplit(before).netloc:
                headers = {}
            self.public_only = not own
        raise RefusedError(f"{shown(self.url)} leads on more than {_MAX_REDIRECTIONS} times")

    def _check_step(self, before: str, url: str, own: bool) -> None:
        parts = urlsplit(url)
        where = f"{shown(self.url)} leads to {shown(url)}"
        if parts.scheme not in ("https", "http") or parts.username or not parts.hostname:
            raise RefusedError(f"{where}, which is not the address of a file")
        if parts.scheme == "http" and urlsplit(before).scheme == "https":
            raise RefusedError(f"{where}, from https to http: nothing is fetched without encryption that began with it")
        if not own and _is_private(parts.hostname):
            raise RefusedError(f"{where}, an address inside of this machine or its network")

    def ask(
        self, url: str, headers: Mapping[str, str], method: str = "GET", timeout_s: float = TIMEOUT_S
    ) -> HTTPResponse:
        """One request; a redirection is an HTTPError."""
        self.host = urlsplit(url).hostname or ""
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            _HttpHandler(self),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        agent = {"User-Agent": f"tlsearch/{__version__}"}
        request = urllib.request.Request(url.partition("#")[0], method=method, headers={**agent, **headers})
        response: HTTPResponse = opener.open(request, timeout=timeout_s)
        self.check()  # what is broken off in its head looks like an end of it
        return response

    def connect(self, address: tuple[str, int], timeout: float, source_address: Any = None) -> socket.socket:
        """As socket.create_connection, to an address that was looked at."""
        host, port = address
        problem: OSError = OSError(f"{host} has no address")
        for *_, found in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
            # a proxy is the user's own; where it leads was looked at by name
            if self.public_only and host == self.host and _is_inside(str(found[0])):
                raise RefusedError(f"{shown(self.url)} leads to {found[0]}, inside of this machine or its network")
            try:
                self.sock = socket.create_connection((str(found[0]), port), timeout, source_address)
                return self.sock
            except OSError as error:
                problem = error
        raise problem

    def break_off(self) -> None:
        """Ends a read that waits in another thread."""
        self.expired = True
        if self.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _HttpHandler(urllib.request.HTTPHandler):
    """Opens both kinds of addresses through the watch's own connect."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self._open(http.client.HTTPConnection, request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self._open(http.client.HTTPSConnection, request)

    https_request = urllib.request.HTTPHandler.http_request

    def _open(self, kind: type[http.client.HTTPConnection], request: urllib.request.Request) -> HTTPResponse:
        watch = self._watch

        class Connection(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                self._create_connection = watch.connect  # http.client's own seam
                super().connect()
                watch.sock = self.sock

        return self.do_open(Connection, request)


@contextmanager
def watched(watch: Watch) -> Iterator[Watch]:
    """Breaks off what waits when the time is over: each byte of a slow host begins a timeout of a socket again."""
    done = threading.Event()

    def wait() -> None:
        while not done.wait(min(1.0, max(watch.left_s(), 0.01))):
            if watch.left_s() <= 0:
                watch.break_off()
                return

    thread = threading.Thread(target=wait, name="fetch-watch", daemon=True)
    thread.start()
    try:
        yield watch
    except (OSError, HTTPException):
        if watch.expired:  # the socket's own error says nothing
            watch.check()
        raise
    finally:
        done.set()
        thread.join()


def _is_private(host: str) -> bool:
    """Whether a name or a number leads into this machine or its network; False where it does not resolve here."""
    try:
        return any(_is_inside(str(found[0])) for *_, found in socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return False


def _is_inside(number: str) -> bool:
    """Whether an IP address is loopback, link-local, private or otherwise not public."""
    one = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(one, ipaddress.IPv6Address):
        inner = one.ipv4_mapped or one.sixtofour or (one.teredo[1] if one.teredo else None)
        if one in _NAT64:
            inner = ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)
        if inner is not None:
            return _is_inside(str(inner))
    return not one.is_global or one.is_multicast
