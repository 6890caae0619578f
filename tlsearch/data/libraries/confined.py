"""Libraries that read data sets by names which a stranger wrote: no network, and bounded regular files alone.

Python calls its audit hooks before each file and each connection is opened (PEP 578). Native code that opens files
by itself (Arrow's memory maps) is not seen: what it may open is looked at beforehand.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from tlsearch.core.files import SET_BYTES, refusal

# fsspec's event loop inherits it; other threads, which may be those of the tracker, do not.
_confined: ContextVar[bool] = ContextVar("confined", default=False)
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random")
_LOCAL = getattr(socket, "AF_UNIX", -1)
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


@contextmanager
def confined(on: bool = True) -> Iterator[None]:
    """What this thread does inside opens no connection and no file that is not regular, or larger than SET_BYTES.

    Args:
        on: False lets our own fetcher out again.
    """
    _install()
    token = _confined.set(on)
    try:
        yield
    finally:
        _confined.reset(token)


@lru_cache(maxsize=1)
def _install() -> None:
    sys.addaudithook(_hook)  # cannot be taken back: it must cost next to nothing outside


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        if _confined.get():
            _check_file(arguments[0])
    elif event in _NETWORK and _confined.get() and getattr(arguments[0], "family", None) != _LOCAL:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "nothing is fetched while a data set is read")


def _check_file(path: Any) -> None:
    if not isinstance(path, str | bytes) or path in _HARMLESS:
        return
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # to be made, or the library's own error
        return
    if not stat.S_ISDIR(found.st_mode) and (text := refusal(found, SET_BYTES)):
        raise OSError(errno.EINVAL, text, os.fsdecode(path))
