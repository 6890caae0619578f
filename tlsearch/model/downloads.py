"""The libraries' official weights, from their own caches or over the network."""

from __future__ import annotations

import logging
import pickle
from typing import Any

from torch import Tensor

from tlsearch.model.construction import ConstantFill, forked_seed
from tlsearch.model.library import import_timm
from tlsearch.model.network import ATTEMPTS, is_hopeless, network_timeout, pause, ways_out

_logger = logging.getLogger(__name__)


def download_torchvision(base: str, member: Any) -> dict[str, Tensor]:
    """The state dict of one member of a torchvision weights enum, its checksum verified after a download.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with network_timeout():
                state = member.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # URLError is an OSError
            if is_hopeless(error) or attempt == ATTEMPTS:
                raise ways_out(base, f"the official weights {member.name} ({member.url}) of {base}", error) from error
            _logger.warning("download of %s failed (%s); trying again", member.url, error)
            pause(attempt)
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
        with forked_seed(0), ConstantFill(), network_timeout():
            model = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, huggingface_hub and their http clients share no base class of errors
        raise ways_out(base, f"the official weights {name} of {base}", error) from error
    return dict(model.state_dict())
