"""The feature store of a node: activations on disk, computed once, shared read-only by all trials.

An entry is three files in ``features/`` of the cache folder::

    <key>.bin    the rows, raw, feature maps in NHWC order
    <key>.json   shape, dtype and sha256 of the rows: written last, the commit point; its mtime is the last use
    <key>.lock   held by the one writer; the system frees it when its process dies

Rows are mapped copy-on-write, so that even a head that worked in place could neither crash nor change what
others read. An entry that is deleted while mapped stays readable until its readers are gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from tlsearch.codec import read_json
from tlsearch.data import cache_directory
from tlsearch.features.budget import budget_bytes, make_room, remove_entry
from tlsearch.features.keys import FeatureKey
from tlsearch.types import CacheSpec

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT_S = 3600.0  # a writer that takes longer is taken for stuck; the trial then reads pixels
_MAX_OPEN = 16  # mapped entries that a process keeps, the least recently used dropped first
_HALF_MAX = 65504.0
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16)}
_open: OrderedDict[Path, Tensor] = OrderedDict()


@dataclass(frozen=True, kw_only=True)
class Features:
    """A stored entry.

    Attributes:
        rows: float32 (or float16) (N, F), or (N, C, H, W) in channels_last; memory-mapped: gather copies.
        built: Whether this call computed it.
    """

    rows: Tensor
    built: bool


@dataclass(frozen=True, kw_only=True)
class NotStored:
    """The entry cannot be kept here; ``reason`` says why, for the trial's report."""

    reason: str


class _HalfOverflow(Exception):
    """An activation is beyond float16."""


def open_features(
    key: FeatureKey,
    *,
    num_rows: int,
    compute: Callable[[], Iterable[Tensor]],
    cache: CacheSpec,
    num_alike: int = 1,
) -> Features | NotStored:
    """Maps an entry, computing it first if no one has.

    Args:
        num_rows: N, the images of the split.
        num_alike: Entries of this size that the trial reads in turn. None is stored unless the budget holds them
            all: each would evict the one that is needed next.
        compute: Starts a pass over the split; yields float32 activations of consecutive images.
        cache: Where, and how much. A damaged entry is computed anew.

    Returns:
        The entry, or the reason why it cannot be kept: over the budget, disk full, or a writer that hangs.
    """
    directory = cache_directory(cache) / "features"
    rows = _open_entry(directory, key, num_rows)
    if rows is not None:
        return Features(rows=rows, built=False)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(directory / f"{key.digest}.lock", timeout=_LOCK_TIMEOUT_S):
            rows = _open_entry(directory, key, num_rows)  # someone else may have built it while we waited
            if rows is not None:
                return Features(rows=rows, built=False)
            refusal = _build(directory, key, num_rows, compute, cache, num_alike)
            if refusal is not None:
                return refusal
            rows = _open_entry(directory, key, num_rows)
    except Timeout:
        return NotStored(reason=f"another process has been writing the features for {_LOCK_TIMEOUT_S:.0f} s")
    except OSError as error:
        return NotStored(reason=f"the feature store cannot be written: {error}")
    if rows is None:
        return NotStored(reason="the features were damaged or removed right after they were written")
    return Features(rows=rows, built=True)


def find_features(key: FeatureKey, *, num_rows: int, cache: CacheSpec) -> Features | None:
    """Maps an entry if it is there and sound; computes nothing and waits for nobody."""
    rows = _open_entry(cache_directory(cache) / "features", key, num_rows)
    return None if rows is None else Features(rows=rows, built=False)


def forget_open() -> None:
    """Drops the process's mapped entries."""
    _open.clear()


def _open_entry(directory: Path, key: FeatureKey, num_rows: int) -> Tensor | None:
    """Maps and checks an entry, once per process; None where there is no sound one."""
    sidecar = directory / f"{key.digest}.json"
    try:
        os.utime(sidecar)  # its last use, for the eviction
    except OSError:
        _open.pop(sidecar, None)  # absent or evicted
        return None
    if sidecar in _open:
        _open.move_to_end(sidecar)
        return _open[sidecar]
    rows = _map_rows(sidecar, num_rows)
    if rows is not None:
        _open[sidecar] = rows
        while len(_open) > _MAX_OPEN:
            _open.popitem(last=False)
    return rows


def _map_rows(sidecar: Path, num_rows: int) -> Tensor | None:
    try:
        content: dict[str, Any] = read_json(sidecar)
        shape = tuple(int(side) for side in content["shape"])
        mapped = np.memmap(sidecar.with_suffix(".bin"), dtype=_DTYPES[content["dtype"]], mode="c", shape=shape)
        sound = shape[0] == num_rows and hashlib.sha256(mapped.data).hexdigest() == content["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("feature store: %s cannot be read (%s)", sidecar, error)
        return None
    if not sound:
        _log.warning("feature store: %s does not match its checksum; it is computed anew", sidecar)
        return None
    rows = torch.from_numpy(mapped)
    return rows.permute(0, 3, 1, 2) if rows.dim() == 4 else rows


def _build(
    directory: Path,
    key: FeatureKey,
    num_rows: int,
    compute: Callable[[], Iterable[Tensor]],
    cache: CacheSpec,
    num_alike: int,
) -> NotStored | None:
    """Computes, writes and commits an entry; the caller holds its lock."""
    sidecar = directory / f"{key.digest}.json"
    remove_entry(sidecar)  # a damaged one
    temporary = directory / f"{key.digest}.tmp"  # may be left from a killed writer: overwritten
    try:
        try:
            content = _write_rows(temporary, num_rows, compute(), cache, num_alike, half=key.precision == "half")
        except _HalfOverflow:
            content = _write_rows(temporary, num_rows, compute(), cache, num_alike, half=False)
        if isinstance(content, NotStored):
            return content
        os.replace(temporary, sidecar.with_suffix(".bin"))
        temporary.write_text(json.dumps({**content, "key": key.as_dict()}, indent=1), encoding="utf-8")
        os.replace(temporary, sidecar)
    finally:
        temporary.unlink(missing_ok=True)
    _log.info("feature store: built %s, %s %s", key.digest, key.backbone, content["shape"])
    return None


def _write_rows(
    path: Path, num_rows: int, batches: Iterable[Tensor], cache: CacheSpec, num_alike: int, *, half: bool
) -> dict[str, Any] | NotStored:
    """Streams rows to a file; returns the sidecar's content, or why there is no room."""
    checksum = hashlib.sha256()
    written = 0
    dtype = "float16" if half else "float32"
    row_shape: tuple[int, ...] = ()
    with path.open("wb") as file:
        for batch in batches:
            array = _to_array(batch, half)
            if not row_shape:
                row_shape = array.shape[1:]
                needed = num_rows * array[0].nbytes
                budget = budget_bytes(path.parent, cache.features_gb)
                if needed * num_alike > budget or not make_room(path.parent, needed, budget):
                    all_gb, budget_gb = needed * num_alike / 1e9, budget / 1e9
                    return NotStored(
                        reason=f"the features need {all_gb:.3g} GB; the feature store may hold {budget_gb:.3g} GB"
                    )
            checksum.update(array.data)
            file.write(array.data)
            written += len(array)
        file.flush()
        os.fsync(file.fileno())
    assert written == num_rows, f"a pass over {num_rows} images gave {written} rows"
    return {"shape": [num_rows, *row_shape], "dtype": dtype, "sha256": checksum.hexdigest()}


def _to_array(batch: Tensor, half: bool) -> np.ndarray[Any, Any]:
    batch = batch.detach().float().cpu()
    if batch.dim() == 4:
        batch = batch.permute(0, 2, 3, 1)
    if half:
        if float(batch.abs().max()) > _HALF_MAX:
            raise _HalfOverflow
        batch = batch.half()
    return batch.contiguous().numpy()
