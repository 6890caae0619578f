"""Weights files at an address: fetched once into this node's cache, whole and checked, or not at all."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from filelock import FileLock

import tlsearch
from tlsearch.data import cache_directory
from tlsearch.data.modes import give_usual_mode
from tlsearch.errors import WeightsError
from tlsearch.model.file_kinds import other_kind, page_hint
from tlsearch.model.network import ATTEMPTS, TIMEOUT_S, is_hopeless, pause, ways_out
from tlsearch.types import CacheSpec

_logger = logging.getLogger(__name__)

MAX_BYTES = 20 * 10**9  # the largest published vision models take 12 GB; more is no weights file
_CHUNK_BYTES = 1024 * 1024
# torchvision's way to name a file after its content: resnet18-f37072fd.pth. Digits alone are more likely a date.
_HASH_IN_NAME = re.compile(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.[A-Za-z]+$")
_HASH_IN_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{64})$")


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query (signatures)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"


def fetch(url: str, backbone: str) -> Path:
    """The local copy of a file at an ``https://``, ``http://`` or ``s3://`` address, downloaded where it is not there.

    A hash in the file's name (``name-<first digits of its sha256>.pth``) or at the end of the address
    (``#sha256=<64 digits>``) is checked. What stands in the cache is whole: it is written beside and renamed.

    Args:
        url: The address.
        backbone: For whom, in messages.

    Raises:
        WeightsError: It cannot be had, is too large, or is not what the hash says.
    """
    name = _file_name(url)
    folder = cache_directory(CacheSpec()) / "weights"
    # The name last, so that its suffix still tells the format.
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if path.is_file():
        return path
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():  # another process may have fetched it while we waited
                _download(url, path, backbone)
    except OSError as error:
        raise WeightsError(f"{shown(url)} cannot be kept in {folder}: {error.strerror or error}") from error
    return path


def _file_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        shown(url)
    except ValueError as error:
        raise WeightsError(f"weights have an address that cannot be read: {error}") from error
    if parts.scheme not in ("https", "http", "s3"):
        raise WeightsError(f"weights have an address that begins with https:// or s3://, not {shown(url)!r}")
    if parts.username or parts.password:
        raise WeightsError(f"the address {shown(url)!r} of weights must not carry a user and a password")
    name = Path(parts.path).name
    if not name:
        raise WeightsError(f"the address of weights names a file, and {shown(url)!r} names none")
    return name


def _download(url: str, path: Path, backbone: str) -> None:
    for stale in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):  # of a process that was killed; we hold its lock
        stale.unlink(missing_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _temporary(path) as temporary:
                _copy(url, temporary)
                if problem := other_kind(temporary):  # what a host sends in its place is not kept
                    raise WeightsError(f"{shown(url)} {problem}{page_hint(url)}")
                os.replace(temporary, path)
                return
        except (OSError, HTTPException) as error:  # URLError is an OSError
            if is_hopeless(error) or attempt == ATTEMPTS:
                raise ways_out(backbone, f"the weights {shown(url)} of {backbone}", error) from error
            _logger.warning("download of %s failed (%s); trying again", shown(url), error)
            pause(attempt)


def _copy(url: str, path: Path) -> None:
    """Streams a file and checks what came.

    Raises:
        WeightsError: It is too large, or not what its hash says.
        OSError: The network, or the disk.
    """
    digest, size_bytes = hashlib.sha256(), 0
    with _open(url) as (source, length), open(path, "wb") as target:
        while chunk := source.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if max(size_bytes, length or 0) > MAX_BYTES:
                raise WeightsError(f"{shown(url)} has more than {MAX_BYTES / 1e9:g} GB, too much for a weights file")
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if length is not None and size_bytes != length:
        raise ConnectionError(f"the connection ended after {size_bytes} of {length} bytes")
    if size_bytes == 0:
        raise WeightsError(f"{shown(url)} is an empty file")
    found = _HASH_IN_FRAGMENT.search(urlsplit(url).fragment) or _HASH_IN_NAME.search(urlsplit(url).path)
    if found and not digest.hexdigest().startswith(found[1].lower()):
        raise WeightsError(f"{shown(url)} should have the sha256 {found[1]}..., but has {digest.hexdigest()}")


@contextmanager
def _open(url: str) -> Iterator[tuple[IO[bytes], int | None]]:
    """The file as a stream of bytes, and its length where the other side says it."""
    if urlsplit(url).scheme == "s3":
        filesystem, path = _s3(url)
        with filesystem.open_input_stream(path) as stream:
            yield stream, filesystem.get_file_info(path).size
        return
    request = urllib.request.Request(url, headers={"User-Agent": f"tlsearch/{tlsearch.__version__}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        length = response.headers.get("Content-Length") or ""
        yield response, int(length) if length.isdigit() else None


def _s3(url: str) -> tuple[Any, str]:
    """pyarrow's file system of a bucket and the path in it; credentials and region come from the environment."""
    try:
        from pyarrow import fs
    except ImportError as error:
        raise WeightsError(
            f"{shown(url)} needs the package pyarrow, which is not installed: pip install pyarrow; or download the"
            " file and give its path"
        ) from error
    filesystem, path = fs.FileSystem.from_uri(url.partition("#")[0])
    return filesystem, path


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, removed unless it was renamed."""
    number, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(number)
    try:
        give_usual_mode(Path(name))
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
