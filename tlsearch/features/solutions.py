"""Small sets of tensors that all trials of a node share: computed once, kept as the bytes of a safetensors file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
from filelock import Timeout
from safetensors.torch import load, save
from torch import Tensor

from tlsearch.core.types import CacheSpec, Scalar
from tlsearch.features.keys import FeatureKey
from tlsearch.node_cache.directory import cache_directory
from tlsearch.node_cache.store import Content, NoRoomError, Store

_log = logging.getLogger(__name__)
_LOCK_TIMEOUT_S = 1800.0  # a writer that takes longer is taken for stuck; the tensors are then computed here too
_BUDGET_GB = 1.0


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
    folder = cache_directory(cache) / "solutions"
    store = Store(folder=folder, budget_gb=_BUDGET_GB, wait_s=_LOCK_TIMEOUT_S)
    computed: dict[str, Tensor] = {}

    def content() -> Content:
        computed.update((name, tensor.detach().cpu().contiguous()) for name, tensor in compute().items())
        data = np.frombuffer(save(computed), dtype=np.uint8)
        return Content(shape=data.shape, dtype=data.dtype, rows=[data])

    try:
        array, _ = store.open({"kind": kind, "settings": dict(settings or {}), "of": key.as_dict()}, content)
        return load(array.tobytes())
    except (NoRoomError, Timeout, OSError) as error:
        _log.warning("%s is computed and not kept: %s", kind, error)
        if not computed:
            content()
        return computed
