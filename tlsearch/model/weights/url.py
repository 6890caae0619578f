"""Weights files at an address: fetched once into this node's cache, whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from tlsearch.core.errors import WeightsError
from tlsearch.core.types import CacheSpec
from tlsearch.data.fetch.connection import RefusedError, shown
from tlsearch.data.fetch.fetcher import WEIGHTS, fetch_file
from tlsearch.model.weights.file_kinds import begins_with, kind_of, other_kind, page_hint
from tlsearch.node_cache.locked_files import cache_directory, writing

STORE = "weights"
# torchvision's way to name a file after its content: resnet18-f37072fd.pth. Digits alone are more likely a date.
_HASH_IN_NAME = re.compile(r"-(?=[0-9]*[a-f])([0-9a-f]{8,64})\.[A-Za-z]+$")
_HASH_IN_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{64})$")


def fetch(url: str, backbone: str, *, what: str = "", headers: Mapping[str, str] | None = None) -> Path:
    """The local copy of a file at an ``https://``, ``http://`` or ``s3://`` address, downloaded where it is not there.

    A hash in the file's name (``name-<first digits of its sha256>.pth``) or at the end of the address
    (``#sha256=<64 digits>``) is checked, and that the file may be weights at all.

    Args:
        url: The address.
        backbone: For whom, in messages.
        what: How messages call the weights; by their address if left out.
        headers: Sent to the address's own host.

    Raises:
        WeightsError: It cannot be had, is too large, or is not what it should be.
    """
    name = _file_name(url)
    folder = cache_directory(CacheSpec()) / STORE
    # The name last, so that its suffix still tells the format.
    path = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if path.is_file():
        return path
    try:
        with writing(path):
            if not path.is_file():  # another process may have fetched it while we waited
                _download(url, path, backbone, what or f"the weights {shown(url)} of {backbone}", headers)
    except OSError as error:
        raise WeightsError(f"{shown(url)} cannot be kept in {folder}: {error.strerror or error}") from error
    return path


def ways_out(backbone: str, what: str, error: BaseException) -> WeightsError:
    """The error for weights that could not be had, which names what the user can do."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return WeightsError(
        f"{what} could not be loaded: {reason}. Ways out, in `weights` of the space: a local file or an https://"
        f" address ({backbone}: ./file.pth), an installed package ({backbone}: {{package: ..., file: ...,"
        f" match: order}}), or `{backbone}: none` to start from random weights"
    )


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


def _download(url: str, path: Path, backbone: str, what: str, headers: Mapping[str, str] | None) -> None:
    def problem(file: Path) -> str:
        wrong = other_kind(file) or (
            "" if kind_of(file) else f"is not a weights file: it begins with {begins_with(file)}"
        )
        return f"{wrong}{page_hint(url)}" if wrong else ""

    found = _HASH_IN_FRAGMENT.search(urlsplit(url).fragment) or _HASH_IN_NAME.search(urlsplit(url).path)
    try:
        fetch_file(url, path, WEIGHTS, problem=problem, sha256=found[1] if found else "", headers=headers)
    except ImportError as error:
        raise WeightsError(
            f"{shown(url)} needs the package pyarrow, which is not installed: pip install pyarrow; or download the"
            " file and give its path"
        ) from error
    except RefusedError as error:
        raise WeightsError(str(error)) from error
    except (OSError, HTTPException) as error:
        raise ways_out(backbone, what, error) from error
