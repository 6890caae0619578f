"""The one way by which tlsearch fetches files: bounded in size and time, checked, and whole or not there at all."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from tlsearch.data.fetch.connection import REDIRECTED, Limits, RefusedError, Watch, shown, watched
from tlsearch.node_cache.locked_files import remove_drafts, temporary_file

_logger = logging.getLogger(__name__)

ATTEMPTS = 3
_LOOK_S = 10.0
_PAUSE_S = 2.0
_HOPELESS_STATUS = (401, 403, 404, 410)
_CHUNK_BYTES = 1 << 20
_REMEMBERED_S = 60.0

# Hosts that did not answer, when and why: 80 backbones of one host must not wait for it 80 times.
_SILENT: dict[str, tuple[float, Exception]] = {}


WEIGHTS = Limits(max_bytes=20 * 10**9, total_s=6 * 3600)  # the largest published vision models take 12 GB
SET_FILE = Limits(max_bytes=300 * 10**9, total_s=48 * 3600)  # iNaturalist 2021 takes 224 GB


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
    remove_drafts(path)
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
    """Whether another try would fail too: the host has no address, the file does not exist, or the disk is full."""
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
        with watched(Watch(url=url, limits=Limits(max_bytes=0, total_s=_LOOK_S))) as watch:
            watch.ask(url, headers or {}, method="HEAD", timeout_s=_LOOK_S).close()
        return None
    except HTTPError as error:
        error.close()
        return None if error.code in REDIRECTED else error  # it is not followed: one is answer enough
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
    watch: Watch
    length: int | None
    sha256: str = ""


@contextmanager
def _opened(url: str, limits: Limits, headers: Mapping[str, str]) -> Iterator[_Source]:
    with watched(Watch(url=url, limits=limits)) as watch:
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
