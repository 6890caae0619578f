"""Small sets of tensors that all trials of a node share: computed once, kept beside the feature store.

An entry is a .safetensors file, and a .json file with its sha256, written last: the commit point.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from tlsearch.codec import read_json
from tlsearch.data import cache_directory
from tlsearch.features.keys import FeatureKey
from tlsearch.types import CacheSpec, Scalar

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT_S = 1800.0  # a writer that takes longer is taken for stuck; the tensors are then computed here too
_MAX_ENTRIES = 256  # the least recently used ones beyond that are deleted


def open_solution(
    kind: str,
    key: FeatureKey,
    *,
    compute: Callable[[], Mapping[str, Tensor]],
    cache: CacheSpec,
    settings: Mapping[str, Scalar] | None = None,
) -> dict[str, Tensor]:
    """Reads an entry, computing and storing it first if no one has.

    Args:
        kind: What it is; a part of its name, as are ``settings``.
        key: Of the images and the prefix that it was computed from.
        compute: Gives the tensors; they are stored as they are on the CPU.
        cache: Where the node's caches are.

    Returns:
        The tensors, on the CPU. Where the cache cannot be written they are computed and not kept.
    """
    content = {"kind": kind, "settings": dict(settings or {}), "key": key.as_dict()}
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    directory = cache_directory(cache) / "solutions"
    found = _read(directory / f"{name}.json")
    if found is not None:
        return found
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(directory / f"{name}.lock", timeout=_LOCK_TIMEOUT_S):
            found = _read(directory / f"{name}.json")  # someone else may have computed it while we waited
            if found is None:
                found = _computed(compute)
                _write(directory / f"{name}.json", found, content)
            return found
    except (Timeout, OSError) as error:
        _log.warning("%s is computed and not kept: %s", kind, error)
        return found or _computed(compute)


def _computed(compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in compute().items()}


def _read(sidecar: Path) -> dict[str, Tensor] | None:
    try:
        os.utime(sidecar)  # its last use
        content = read_json(sidecar)
        data = sidecar.with_suffix(".safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != content["sha256"]:
            raise ValueError("it does not match its checksum")
        tensors: dict[str, Tensor] = load(data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        _log.warning("%s cannot be used and is computed anew: %s", sidecar, error)
        return None
    return tensors


def _write(sidecar: Path, tensors: Mapping[str, Tensor], content: Mapping[str, object]) -> None:
    """Writes and commits an entry; the caller holds its lock."""
    data = save(dict(tensors))
    _replace(sidecar.with_suffix(".safetensors"), data)
    text = json.dumps({**content, "sha256": hashlib.sha256(data).hexdigest()}, indent=1)
    _replace(sidecar, text.encode())
    entries = sorted(sidecar.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for old in entries[:-_MAX_ENTRIES]:
        for suffix in (".json", ".safetensors", ".lock"):
            old.with_suffix(suffix).unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")  # the lock makes us its only writer
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
