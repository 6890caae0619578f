"""What every download shares: how often, how long, when it is no use, and what to tell the user."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tlsearch.errors import WeightsError

ATTEMPTS = 3
TIMEOUT_S = 30.0
_PAUSE_S = 2.0
_HOPELESS_STATUS = (401, 403, 404, 410)


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
        f"{what} could not be loaded: {reason}. Ways out, in `weights` of the"
        f" space: a local file ({backbone}: ./file.pth), an installed package ({backbone}: {{package: ..., file: ...,"
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
