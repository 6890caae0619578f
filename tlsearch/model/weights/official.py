"""The libraries' official weights: from the libraries' own caches where they have them, else fetched into ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from tlsearch.core.errors import WeightsError
from tlsearch.data.fetch.fetcher import known_silence, look
from tlsearch.data.libraries.confined import confined
from tlsearch.model.libraries.fast_init import ConstantFill, forked_seed
from tlsearch.model.libraries.libraries import import_timm, timm_config, timm_name, torchvision_weights
from tlsearch.model.weights.state_files import read_state
from tlsearch.model.weights.url import fetch, ways_out


def download_torchvision(base: str, member: Any) -> dict[str, Tensor]:
    """The state dict of one member of a torchvision weights enum; a download has the sha256 that its name says.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    what = f"the official weights {member.name} ({member.url}) of {base}"
    path = _in_torchs_cache(member.url) or _fetched([member.url], {}, base, what)
    return read_state(path, what)


def download_timm(base: str, version: str | None) -> dict[str, Tensor]:
    """The state dict of one of timm's pretrained models; timm, which knows how to convert each file, is given the file.

    Raises:
        WeightsError: It cannot be had; the message names the ways out.
    """
    timm, name = import_timm(), timm_name(base, version)
    what = f"the official weights {name} of {base}"
    cached, urls, headers = _timms_places(base, version)
    path = cached or _fetched(urls, headers, base, what)
    try:
        with confined(), forked_seed(0), ConstantFill():  # timm fetches nothing by itself
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(path), "source": ""})
    except Exception as error:  # whatever a damaged file leads timm and torch into
        raise ways_out(base, what, error) from error
    return dict(model.state_dict())


def look_for_torchvision(base: str, version: str | None) -> None:
    """Whether official weights could be loaded, seen without fetching them.

    Raises:
        WeightsError: They are neither in torch's cache nor to be had; the message names the ways out.
        UserError: The model or version does not exist.
    """
    member = torchvision_weights(base, version)
    if _in_torchs_cache(member.url) is None:
        _look([member.url], {}, base, f"the official weights {member.name} ({member.url}) of {base}")


def look_for_timm(base: str, version: str | None) -> None:
    """As `look_for_torchvision`, for timm's weights: on the Hugging Face hub, or at an address of their own."""
    cached, urls, headers = _timms_places(base, version)
    if cached is None:
        _look(urls, headers, base, f"the official weights {timm_name(base, version)} of {base}")


def _timms_places(base: str, version: str | None) -> tuple[Path | None, list[str], dict[str, str]]:
    """The file in a library's cache, or the addresses that may have it, with the headers that they take.

    Raises:
        WeightsError: No cache holds it, or the hub may not be asked.
    """
    config = timm_config(base, version)
    what = f"the official weights {timm_name(base, version)} of {base}"
    if config.hf_hub_id:
        from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache

        hub, _, revision = config.hf_hub_id.partition("@")
        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        for file in files:
            if isinstance(found := try_to_load_from_cache(hub, file, revision=revision or None), str):
                return Path(found), [], {}
        if constants.HF_HUB_OFFLINE:
            raise ways_out(base, what, OSError("HF_HUB_OFFLINE is set, and they are not in the hub's cache"))
        headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
        return None, [hf_hub_url(hub, file, revision=revision or None) for file in files], headers
    if not config.url:
        raise ways_out(base, what, ValueError("timm publishes none"))
    return _in_torchs_cache(config.url), [config.url], {}


def _fetched(urls: Sequence[str], headers: dict[str, str], base: str, what: str) -> Path:
    """The first of some files that can be had."""
    problems: list[WeightsError] = []
    for url in urls:
        if (silence := known_silence(url)) is not None:
            raise ways_out(base, what, silence)
        try:
            return fetch(url, base, what=what, headers=headers)
        except WeightsError as error:
            problems.append(error)
    raise problems[0]


def _look(urls: Sequence[str], headers: dict[str, str], base: str, what: str) -> None:
    problems: list[Exception] = []
    for url in urls:
        if (error := look(url, headers)) is None:
            return
        problems.append(error)
    raise ways_out(base, what, problems[0]) from problems[0]


def _in_torchs_cache(url: str) -> Path | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return path if path.is_file() else None
