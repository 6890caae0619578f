"""The one way by which tlsearch fetches files: bounded in size and time, checked, and whole or not there at all.

A redirection leads neither from https to http nor, from a public host, to an address of this machine or its network:
such an address is connected to only where the user's own configuration names it. Names are resolved once: the address
that was looked at is the one that is connected to. A host that sends slowly is given up by its average rate.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import ipaddress
import logging
import os
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urljoin, urlsplit

import tlsearch
from tlsearch.data.modes import give_usual_mode

_logger = logging.getLogger(__name__)

ATTEMPTS = 3
TIMEOUT_S = 30.0  # of one answer of the network
GRACE_S = 60.0  # before the average rate counts
MIN_BYTES_PER_S = 20_000.0
_LOOK_S = 10.0
_PAUSE_S = 2.0
_MAX_REDIRECTIONS = 5
_HOPELESS_STATUS = (401, 403, 404, 410)
_REDIRECTED = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 20
_REMEMBERED_S = 60.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

# Hosts that did not answer, when and why: 80 backbones of one host must not wait for it 80 times.
_SILENT: dict[str, tuple[float, Exception]] = {}


class RefusedError(OSError):
    """What was sent, or where an address led, is not taken; another attempt would not help."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one file: its bytes, and the seconds that it may take in all."""

    max_bytes: int
    total_s: float


WEIGHTS = Limits(max_bytes=20 * 10**9, total_s=6 * 3600)  # the largest published vision models take 12 GB
SET_FILE = Limits(max_bytes=300 * 10**9, total_s=48 * 3600)  # iNaturalist 2021 takes 224 GB


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query (signatures)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def fetch_file(
    url: str,
    path: Path,
    limits: Limits,
    *,
    problem: Callable[[Path], str] = lambda _: "",
    sha256: str = "",
    num_bytes: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Puts the file at an ``https://``, ``http://`` or ``s3://`` address at ``path``; the caller holds the path's lock.

    Args:
        url: The address; what is behind a ``#`` is not sent.
        path: Where it goes; its folder exists.
        limits: Of its size and time.
        problem: What is wrong with the file, as the end of a sentence; empty where nothing is.
        sha256: The digest or its first digits; empty where it is not known.
        num_bytes: Its size, where that is known.
        headers: Sent to the first host alone.

    Raises:
        RefusedError: It is too large, takes too long, is not what it should be, or leads where nothing is fetched from.
        OSError: It cannot be had, after some attempts; or the disk.
    """
    for stale in path.parent.glob(f"{_prefix(path)}*.fetch"):  # of a process that was killed
        stale.unlink(missing_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with temporary_file(path) as temporary:
                _copy(url, temporary, limits, headers or {}, sha256, num_bytes)
                if wrong := problem(temporary):  # what a host sends in its place is not kept
                    raise RefusedError(f"{shown(url)} {wrong}")
                os.replace(temporary, path)
                return
        except (OSError, HTTPException) as error:  # URLError is an OSError
            if isinstance(error, URLError) and isinstance(error.reason, RefusedError):
                raise error.reason from error
            if is_hopeless(error) or attempt == ATTEMPTS:
                if isinstance(error, URLError) and not isinstance(error, HTTPError):
                    note_silence(url, error)
                raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error
            _logger.warning("download of %s failed (%s); trying again", shown(url), error)
            time.sleep(_PAUSE_S * attempt)


def is_hopeless(error: BaseException) -> bool:
    """Whether trying again is no use: no network (a name that does not resolve), no such file, no room for it."""
    return (
        isinstance(getattr(error, "reason", None), socket.gaierror)
        or getattr(error, "code", None) in _HOPELESS_STATUS
        or isinstance(error, RefusedError | FileNotFoundError | PermissionError)
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    )


def look(url: str, headers: Mapping[str, str] | None = None) -> Exception | None:
    """Asks whether there is a file at an address, without fetching it: None, or why there is none."""
    if (silence := known_silence(url)) is not None:
        return silence
    try:
        with _watched(_Watch(url=url, limits=Limits(max_bytes=0, total_s=_LOOK_S))) as watch:
            watch.ask(url, headers or {}, method="HEAD", timeout_s=_LOOK_S).close()
        return None
    except HTTPError as error:
        error.close()
        return None if error.code in _REDIRECTED else error  # it is not followed: one is answer enough
    except (OSError, HTTPException) as error:
        note_silence(url, error)
        return error


def note_silence(url: str, error: Exception) -> None:
    """Remembers for a minute that the host of ``url`` did not answer."""
    _SILENT[urlsplit(url).netloc] = (time.monotonic(), error)


def known_silence(url: str) -> Exception | None:
    """Why the host of ``url`` did not answer less than a minute ago."""
    when, error = _SILENT.get(urlsplit(url).netloc, (0.0, None))
    return error if error is not None and time.monotonic() - when < _REMEMBERED_S else None


def forget_silence() -> None:
    """Asks every host again."""
    _SILENT.clear()


# --- one attempt ---------------------------------------------------------------------------------


def _copy(url: str, path: Path, limits: Limits, headers: Mapping[str, str], sha256: str, num_bytes: int | None) -> None:
    digest, size = hashlib.sha256(), 0
    with _opened(url, limits, headers) as source, open(path, "wb") as target:
        announced = source.length if num_bytes is None else num_bytes
        while chunk := source.read():
            size += len(chunk)
            source.watch.received = size
            if max(size, announced or 0) > limits.max_bytes:
                raise RefusedError(
                    f"{shown(url)} has more than {limits.max_bytes / 1e9:g} GB, too much for such a file"
                )
            source.watch.check()
            digest.update(chunk)
            target.write(chunk)
        source.watch.check()
        target.flush()
        os.fsync(target.fileno())
    if announced is not None and size != announced:
        raise ConnectionError(f"the connection ended after {size} of {announced} bytes")
    if size == 0:
        raise RefusedError(f"{shown(url)} is an empty file")
    expected = sha256.lower() or source.sha256
    if not digest.hexdigest().startswith(expected):
        raise RefusedError(f"{shown(url)} should have the sha256 {expected}..., but has {digest.hexdigest()}")


@dataclass(kw_only=True)
class _Source:
    """An open file elsewhere: its bytes, and what the other side says of them."""

    read: Callable[[], bytes]
    watch: _Watch
    length: int | None
    sha256: str = ""


@contextmanager
def _opened(url: str, limits: Limits, headers: Mapping[str, str]) -> Iterator[_Source]:
    with _watched(_Watch(url=url, limits=limits)) as watch:
        if urlsplit(url).scheme == "s3":
            from pyarrow import fs  # reads the credentials and the region from the environment

            filesystem, key = fs.FileSystem.from_uri(url.partition("#")[0])
            with filesystem.open_input_stream(key) as stream:
                size = filesystem.get_file_info(key).size
                yield _Source(read=partial(stream.read, _CHUNK_BYTES // 16), watch=watch, length=size)
            return
        with watch.follow(headers) as (response, sha256):
            length = response.headers.get("Content-Length") or ""
            yield _Source(
                # read1 gives what has come: read would wait for a whole chunk, as slowly as the host likes
                read=partial(response.read1, _CHUNK_BYTES),
                watch=watch,
                length=int(length) if length.isdigit() else None,
                sha256=sha256,
            )


@dataclass(kw_only=True)
class _Watch:
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
                if error.code not in _REDIRECTED or not target:
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
            raise RefusedError(f"{where}, which is no address of a file")
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
        agent = {"User-Agent": f"tlsearch/{tlsearch.__version__}"}
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

    def __init__(self, watch: _Watch) -> None:
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
def _watched(watch: _Watch) -> Iterator[_Watch]:
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


def _prefix(path: Path) -> str:
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}."


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, removed unless it was renamed."""
    number, name = tempfile.mkstemp(prefix=_prefix(path), suffix=".fetch", dir=path.parent)
    os.close(number)
    try:
        give_usual_mode(Path(name))
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
