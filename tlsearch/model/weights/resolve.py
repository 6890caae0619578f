"""Pretrained weights of a backbone, wherever they come from, as one state under the library's own names."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.core.errors import WeightsError
from tlsearch.core.printable import printable
from tlsearch.core.types import TransformSpec, WeightsSource
from tlsearch.data.fetch.connection import shown
from tlsearch.data.fetch.fetcher import forget_silence
from tlsearch.model.libraries.libraries import (
    default_transform,
    is_timm,
    timm_config,
    timm_name,
    torchvision_weights,
)
from tlsearch.model.weights.matching import layout_of, match_by_name, match_by_order
from tlsearch.model.weights.official import download_official, look_for_official
from tlsearch.model.weights.state_files import package_file, read_state
from tlsearch.model.weights.url import fetch
from tlsearch.space.libraries.backbones import split_version


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """What `build_model` loads.

    Attributes:
        id: Where they come from: ``torchvision/resnet50@IMAGENET1K_V2``, ``timm/name.tag``, ``file:name.pth``,
            ``url:https://host/name.pth``, ``package:name/file``, ``none``.
        digest: sha256 (hex) of the names, types, shapes and bytes of the backbone's tensors, the head not counted:
            the same tensors from two files have one digest. ``none:<backbone>`` for random weights, which are a
            function of each trial's seed.
        state: The backbone's tensors by the library's names, without the head; shared, never to be written to.
            None: random initialisation.
        transform: The evaluation transform, at the weights' own size.
        licence: What the library says about its own weights' licence; empty for files, which say nothing.
    """

    id: str
    digest: str
    state: Mapping[str, Tensor] | None
    transform: TransformSpec
    licence: str = ""

    @cached_property
    def num_bytes(self) -> int:
        """Memory of the tensors, in bytes."""
        return sum(tensor.nbytes for tensor in (self.state or {}).values())


@dataclass(frozen=True, kw_only=True)
class WeightsCard:
    """What is known of weights without loading them: `Weights.id` and `Weights.licence`."""

    id: str
    licence: str = ""


# The weights that this process holds, the latest used last: the next trial of the same backbone loads nothing.
_HELD: OrderedDict[tuple[object, ...], Weights] = OrderedDict()
_HELD_LIMIT_BYTES = 2 * 1024**3
_DIGESTS: dict[tuple[object, ...], str] = {}  # of all that were resolved: they outlive the tensors


def resolve_weights(backbone: str, source: WeightsSource) -> Weights:
    """Finds, reads and checks the weights of a backbone; what was resolved is held by the process for the next trial.

    A file that has changed since (by size or modification time) is read again.

    Args:
        backbone: A name, with an optional ``@VERSION`` of the library's weights.
        source: Where to look; its ``version`` comes before the name's.

    Raises:
        WeightsError: The weights cannot be had, or do not fit the backbone.
        UserError: The backbone or version does not exist.
    """
    path = _path_of(source, backbone)
    key = _key_of(backbone, source, path)
    held = _HELD.pop(key, None)
    weights = held if held is not None else _resolve(backbone, source, path)
    _HELD[key] = weights
    _DIGESTS[key] = weights.digest
    while len(_HELD) > 1 and sum(w.num_bytes for w in _HELD.values()) > _HELD_LIMIT_BYTES:
        _HELD.popitem(last=False)
    return weights


def weights_digest(backbone: str, source: WeightsSource) -> str:
    """`Weights.digest`; what this process has resolved before is not read again.

    Raises:
        WeightsError: As for `resolve_weights`.
    """
    known = _DIGESTS.get(_key_of(backbone, source, _path_of(source, backbone)))
    return known if known is not None else resolve_weights(backbone, source).digest


def check_weights(backbone: str, source: WeightsSource) -> None:
    """As `resolve_weights`, but official weights are only looked for: their host is asked, and nothing is fetched.

    Raises:
        WeightsError: The weights cannot be had, or do not fit the backbone.
        UserError: The backbone or version does not exist.
    """
    if source.kind != "default":
        resolve_weights(backbone, source)
        return
    base, version = _versioned(backbone, source)
    _transform(base, version, source)
    look_for_official(base, version)


def release_weights() -> None:
    """Lets go of all weights that this process holds, and of what it knows of hosts that did not answer."""
    _HELD.clear()
    forget_silence()


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over the names in alphabetical order, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_card(backbone: str, source: WeightsSource) -> WeightsCard:
    """What the weights of a backbone are, without loading them.

    Raises:
        UserError: The backbone or version does not exist.
    """
    base, version = _versioned(backbone, source)
    if source.kind == "none":
        return WeightsCard(id="none")
    if source.kind == "file":
        return WeightsCard(id=f"file:{Path(source.path or '').name}")
    if source.kind == "url":
        return WeightsCard(id=f"url:{shown(source.url or '')}")
    if source.kind == "package":
        return WeightsCard(id=f"package:{source.package}/{source.file}")
    if is_timm(base):
        config = timm_config(base, version)
        tagged = (
            f"{config.architecture}.{config.tag}" if config.architecture and config.tag else timm_name(base, version)
        )
        licence = config.license if config.license not in (None, "unknown") else "not stated by timm"
        return WeightsCard(id=f"timm/{tagged}", licence=licence)
    member = torchvision_weights(base, version)
    licence = member.meta.get("license") or "not stated by torchvision (its code is BSD-3-Clause)"
    return WeightsCard(id=f"torchvision/{base}@{member.name}", licence=licence)


def weights_transform(backbone: str, source: WeightsSource) -> TransformSpec:
    """The evaluation transform of a backbone's weights at their own size, without loading them.

    Raises:
        UserError: The backbone or version does not exist, or its transform is of another kind.
    """
    return _transform(*_versioned(backbone, source), source)


def _versioned(backbone: str, source: WeightsSource) -> tuple[str, str | None]:
    """The backbone without a version, and the version of the library's weights: what the source names comes first."""
    base, version = split_version(backbone)
    return base, source.version or version


def _key_of(backbone: str, source: WeightsSource, path: Path | None) -> tuple[object, ...]:
    """Stands for weights while their file is unchanged."""
    stat = None if path is None else path.stat()
    return (backbone, source, None if stat is None else (str(path), stat.st_mtime_ns, stat.st_size))


def _path_of(source: WeightsSource, backbone: str) -> Path | None:
    if source.kind == "file":
        if not source.path:
            raise WeightsError("weights of the kind `file` need a path")
        path = Path(source.path)
        if not path.exists():
            raise WeightsError(f"no weights file {path}")
        return path
    if source.kind == "url":
        if not source.url:
            raise WeightsError("weights of the kind `url` need a url")
        return fetch(source.url, backbone)
    if source.kind == "package":
        if not source.package or not source.file:
            raise WeightsError("weights of the kind `package` need both `package` and `file`")
        return package_file(source.package, source.file)
    return None


def _resolve(backbone: str, source: WeightsSource, path: Path | None) -> Weights:
    base, version = _versioned(backbone, source)
    transform = _transform(base, version, source)
    card = weights_card(backbone, source)
    if source.kind == "none":
        return Weights(id=card.id, digest=f"none:{base}", state=None, transform=transform)
    if path is not None:
        where = card.id if source.kind == "url" else printable(str(path))
        state = read_state(path, where)
    else:
        state, where = download_official(base, version), card.id
    match = match_by_order if source.match == "order" else match_by_name
    matched = match(state, layout_of(f"{base}@{version}" if version else base), where)
    return Weights(id=card.id, digest=state_digest(matched), state=matched, transform=transform, licence=card.licence)


def _transform(base: str, version: str | None, source: WeightsSource) -> TransformSpec:
    """The weights' own transform, or the one that is named: another backbone's, or another version's of this one."""
    if source.transform is None:
        return default_transform(f"{base}@{version}" if version else base)
    is_version = not is_timm(base) and source.transform.startswith("IMAGENET")
    return default_transform(f"{base}@{source.transform}" if is_version else source.transform)
