"""The libraries' official weights: from the libraries' own caches where they have them, else fetched into ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from tlsearch.core.errors import WeightsError
from tlsearch.data.fetch.fetcher import known_silence, look
from tlsearch.data.libraries.confined import confined
from tlsearch.model.libraries.fast_init import ConstantFill, forked_seed
from tlsearch.model.libraries.libraries import import_timm, is_timm, timm_config, timm_name, torchvision_weights
from tlsearch.model.weights.state_files import read_state
from tlsearch.model.weights.url import fetch, ways_out


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where official weights are.

    Attributes:
        what: What messages call them.
        cached: The file in a library's cache; None where no cache has it.
        urls: The addresses that may have it then, with the headers that they take.
    """

    what: str
    cached: Path | None
    urls: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def download_official(base: str, version: str | None) -> dict[str, Tensor]:
    """The state dict of a library's own weights; a download of torchvision's has the sha256 that its name says.

    timm, which knows how to convert each of its files, is given the file.

    Raises:
        WeightsError: They cannot be had; the message names the ways out.
        UserError: The model or version does not exist.
    """
    places = _places(base, version)
    path = places.cached or _fetched(places, base)
    if not is_timm(base):
        return read_state(path, places.what)
    try:
        with confined(), forked_seed(0), ConstantFill():  # timm fetches nothing by itself
            overlay = {"file": str(path), "source": ""}
            model = import_timm().create_model(
                timm_name(base, version), pretrained=True, pretrained_cfg_overlay=overlay
            )
    except Exception as error:  # whatever a damaged file leads timm and torch into
        raise ways_out(base, places.what, error) from error
    return dict(model.state_dict())


def look_for_official(base: str, version: str | None) -> None:
    """Whether official weights could be loaded, seen without fetching them.

    Raises:
        WeightsError: They are neither in a library's cache nor to be had; the message names the ways out.
        UserError: The model or version does not exist.
    """
    places = _places(base, version)
    problems: list[Exception] = []
    for url in places.urls:
        if (error := look(url, places.headers)) is None:
            return
        problems.append(error)
    if problems:
        raise ways_out(base, places.what, problems[0]) from problems[0]


def _places(base: str, version: str | None) -> _Places:
    """Of timm's weights: on the Hugging Face hub, or at an address of their own.

    Raises:
        WeightsError: No cache holds them, and the hub may not be asked, or nobody publishes them.
    """
    if not is_timm(base):
        member = torchvision_weights(base, version)
        return _at(member.url, f"the official weights {member.name} ({member.url}) of {base}")
    config = timm_config(base, version)
    what = f"the official weights {timm_name(base, version)} of {base}"
    if not config.hf_hub_id:
        if not config.url:
            raise ways_out(base, what, ValueError("timm publishes none"))
        return _at(config.url, what)
    from huggingface_hub import constants, get_token, hf_hub_url, try_to_load_from_cache

    hub, _, revision = config.hf_hub_id.partition("@")
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    for file in files:
        if isinstance(found := try_to_load_from_cache(hub, file, revision=revision or None), str):
            return _Places(what=what, cached=Path(found))
    if constants.HF_HUB_OFFLINE:
        raise ways_out(base, what, OSError("HF_HUB_OFFLINE is set, and they are not in the hub's cache"))
    headers = {"Authorization": f"Bearer {token}"} if (token := get_token()) else {}
    urls = tuple(hf_hub_url(hub, file, revision=revision or None) for file in files)
    return _Places(what=what, cached=None, urls=urls, headers=headers)


def _at(url: str, what: str) -> _Places:
    """In torch's cache, which both libraries use, else at their own address."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    return _Places(what=what, cached=path) if path.is_file() else _Places(what=what, cached=None, urls=(url,))


def _fetched(places: _Places, base: str) -> Path:
    """The first of the files that can be had."""
    problems: list[WeightsError] = []
    for url in places.urls:
        if (silence := known_silence(url)) is not None:
            raise ways_out(base, places.what, silence)
        try:
            return fetch(url, base, what=places.what, headers=places.headers)
        except WeightsError as error:
            problems.append(error)
    raise problems[0]
