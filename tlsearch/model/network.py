"""What every look at the network shares: how often, how long, when it is no use, and what to tell the user."""

from __future__ import annotations

import errno
import socket
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import tlsearch
from tlsearch.errors import WeightsError

ATTEMPTS = 3
TIMEOUT_S = 30.0
_PAUSE_S = 2.0
_HOPELESS_STATUS = (401, 403, 404, 410)
_LOOK_TIMEOUT_S = 10.0
_REMEMBERED_S = 60.0

# Hosts that did not answer, when and why: 80 backbones of one host must not wait for it 80 times.
_SILENT: dict[str, tuple[float, Exception]] = {}


def is_hopeless(error: BaseException) -> bool:
    """Whether trying again is no use: no network (a name that does not resolve), no such file, no room for it."""
    return (
        isinstance(getattr(error, "reason", None), socket.gaierror)
        or getattr(error, "code", None) in _HOPELESS_STATUS
        or isinstance(error, FileNotFoundError | PermissionError)
        or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    )


def pause(attempt: int) -> None:
    """Waits before the next attempt, longer each time."""
    time.sleep(_PAUSE_S * attempt)


def ways_out(backbone: str, what: str, error: BaseException) -> WeightsError:
    """The error for weights that could not be had, which names what the user can do."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return WeightsError(
        f"{what} could not be loaded: {reason}. Ways out, in `weights` of the space: a local file or an https://"
        f" address ({backbone}: ./file.pth), an installed package ({backbone}: {{package: ..., file: ...,"
        f" match: order}}), or `{backbone}: none` to start from random weights"
    )


@contextmanager
def network_timeout() -> Iterator[None]:
    """torch's downloads have no timeout of their own: a silent network would hang a trial for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


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


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: one is answer enough, and credentials are for the first host alone."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def look(url: str, headers: Mapping[str, str] | None = None) -> Exception | None:
    """Asks whether there is a file at an address, without fetching it: None, or why there is none."""
    if (silence := known_silence(url)) is not None:
        return silence
    agent = {"User-Agent": f"tlsearch/{tlsearch.__version__}"}
    request = urllib.request.Request(url, method="HEAD", headers={**agent, **(headers or {})})
    try:
        with urllib.request.build_opener(_StayHere).open(request, timeout=_LOOK_TIMEOUT_S):
            return None
    except HTTPError as error:
        return None if 300 <= error.code < 400 else error
    except (OSError, HTTPException) as error:  # URLError is an OSError
        note_silence(url, error)
        return error
