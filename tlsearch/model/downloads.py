"""The libraries' official weights, from their own caches or over the network."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import torch
from torch import Tensor

from tlsearch.model.construction import ConstantFill, forked_seed
from tlsearch.model.library import import_timm, timm_config, timm_name, torchvision_weights
from tlsearch.model.network import (
    ATTEMPTS,
    is_hopeless,
    known_silence,
    look,
    network_timeout,
    note_silence,
    pause,
    ways_out,
)

_logger = logging.getLogger(__name__)


def download_torchvision(base: str, member: Any) -> dict[str, Tensor]:
    """The state dict of one member of a torchvision weights enum, its checksum verified after a download.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    what = f"the official weights {member.name} ({member.url}) of {base}"
    if not _in_torchs_cache(member.url) and (silence := known_silence(member.url)) is not None:
        raise ways_out(base, what, silence)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with network_timeout():
                state = member.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # URLError is an OSError
            if is_hopeless(error) or attempt == ATTEMPTS:
                if isinstance(error, URLError) and not isinstance(error, HTTPError):
                    note_silence(member.url, error)
                raise ways_out(base, what, error) from error
            _logger.warning("download of %s failed (%s); trying again", member.url, error)
            pause(attempt)
        else:
            return dict(state)
    raise AssertionError("the loop returns or raises")


def download_timm(base: str, version: str | None) -> dict[str, Tensor]:
    """The state dict of one of timm's pretrained models, loaded by timm, which knows how to convert each of its files.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    look_for_timm(base, version)  # the hub's own client asks a silent network for most of a minute
    timm, name = import_timm(), timm_name(base, version)
    try:
        with forked_seed(0), ConstantFill(), network_timeout():
            model = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm, huggingface_hub and their http clients share no base class of errors
        raise ways_out(base, f"the official weights {name} of {base}", error) from error
    return dict(model.state_dict())


def look_for_torchvision(base: str, version: str | None) -> None:
    """Whether official weights could be loaded, seen without fetching them.

    Raises:
        WeightsError: They are neither in torch's cache nor to be had; the message names the ways out.
        UserError: There is no such model or version.
    """
    member = torchvision_weights(base, version)
    if not _in_torchs_cache(member.url) and (error := look(member.url)) is not None:
        raise ways_out(base, f"the official weights {member.name} ({member.url}) of {base}", error) from error


def look_for_timm(base: str, version: str | None) -> None:
    """As `look_for_torchvision`, for timm's weights: on the Hugging Face hub, or at an address of their own."""
    config, name = timm_config(base, version), timm_name(base, version)
    what = f"the official weights {name} of {base}"
    urls, headers = [config.url], {}
    if config.hf_hub_id:
        from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache

        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        if any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files):
            return
        if constants.HF_HUB_OFFLINE:
            raise ways_out(base, what, OSError("HF_HUB_OFFLINE is set, and they are not in the hub's cache"))
        urls = [hf_hub_url(config.hf_hub_id, file) for file in files]
        headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    elif not config.url:
        raise ways_out(base, what, ValueError("timm publishes none"))
    elif _in_torchs_cache(config.url):
        return
    errors = []
    for url in urls:
        error = look(url, headers)
        if error is None:
            return
        errors.append(error)
    raise ways_out(base, what, errors[0]) from errors[0]


def _in_torchs_cache(url: str) -> bool:
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name).is_file()
