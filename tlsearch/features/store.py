"""Cached features: activations at a frozen boundary, computed once per node, shared read-only by all trials.

The rows are float32 or float16, feature maps in NHWC order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from filelock import Timeout
from numpy.typing import NDArray
from torch import Tensor

from tlsearch.core.types import CacheSpec
from tlsearch.features.keys import FeatureKey
from tlsearch.node_cache.directory import cache_directory
from tlsearch.node_cache.store import Content, NoRoomError, Store

_LOCK_TIMEOUT_S = 3600.0  # a writer that takes longer is taken for stuck; the trial then reads pixels
_HALF_MAX = 65504.0


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
    store = _store(cache)

    def content(half: bool) -> Content:
        batches = iter(compute())
        first = next(batches)
        rows = (_to_array(batch, half) for batch in chain((first,), batches))
        shape = _to_array(first[:1], half=False).shape[1:]
        return Content(shape=(num_rows, *shape), dtype=np.dtype(np.float16 if half else np.float32), rows=rows)

    try:
        try:
            array, built = store.open(key.as_dict(), lambda: content(key.precision == "half"), num_alike=num_alike)
        except _HalfOverflow:
            array, built = store.open(key.as_dict(), lambda: content(False), num_alike=num_alike)
    except NoRoomError as error:
        needed_gb, budget_gb = error.needed_bytes / 1e9, error.budget_bytes / 1e9
        return NotStored(reason=f"the features need {needed_gb:.3g} GB; the feature store may hold {budget_gb:.3g} GB")
    except Timeout:
        return NotStored(reason=f"another process has been writing the features for {_LOCK_TIMEOUT_S:.0f} s")
    except OSError as error:
        return NotStored(reason=f"the feature store cannot be written: {error}")
    return Features(rows=_to_rows(array), built=built)


def find_features(key: FeatureKey, *, num_rows: int, cache: CacheSpec) -> Features | None:
    """Maps an entry if it is there and sound; computes nothing and waits for nobody."""
    array = _store(cache).find(key.as_dict())
    return None if array is None or len(array) != num_rows else Features(rows=_to_rows(array), built=False)


def _store(cache: CacheSpec) -> Store:
    folder = cache_directory(cache) / "features"
    return Store(folder=folder, budget_gb=cache.features_gb, share=0.25, max_open=16, wait_s=_LOCK_TIMEOUT_S)


def _to_rows(array: NDArray[Any]) -> Tensor:
    rows = torch.from_numpy(array)
    return rows.permute(0, 3, 1, 2) if rows.dim() == 4 else rows


def _to_array(batch: Tensor, half: bool) -> NDArray[Any]:
    batch = batch.detach().float().cpu()
    if batch.dim() == 4:
        batch = batch.permute(0, 2, 3, 1)
    if half:
        if float(batch.abs().max()) > _HALF_MAX:
            raise _HalfOverflow
        batch = batch.half()
    return batch.contiguous().numpy()
