"""What a node's caches hold already of a search, and what they have room for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tlsearch.core.files import first_existing
from tlsearch.core.types import CacheSpec, ModelSpec
from tlsearch.data import ImageIndex
from tlsearch.forecast.trial_costs import Node, TrialCosts
from tlsearch.node_cache.entry_files import entries
from tlsearch.node_cache.locked_files import cache_directory

_FEATURES_FRACTION = 0.25  # of the free disk, where cache.features_gb is auto


def stored_entries(cache: CacheSpec, index: ImageIndex, costs: TrialCosts) -> Node:
    """What the node's caches hold of these images and backbones; nothing is opened but the entries' descriptions."""
    root = cache_directory(cache, write=False)
    node = Node()
    for store, read in (("images", _image_key), ("features", _feature_key), ("solutions", _solution_key)):
        for entry in entries(root / store) if (root / store).is_dir() else ():
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # damaged, or earlier
                key = read(entry.key(), index.digest, costs)
                if key is not None:
                    node.stored[key] = 0.0
    return node


def _image_key(key: Mapping[str, Any], digest: str, costs: TrialCosts) -> tuple[object, ...] | None:
    return ("images", key["split"], key["side"]) if key["digest"] == digest else None


def _feature_key(key: Mapping[str, Any], digest: str, costs: TrialCosts) -> tuple[object, ...] | None:
    """Entries of recalibrated statistics look like others and count as those of pretrained ones."""
    spec = _spec_of(key["backbone"], key["transform"]["crop_size"], costs)
    if spec is None or key["data_digest"] != digest:
        return None
    if key["precision"] != costs.setup.cache.feature_precision:
        return None
    view = (key["augmentation"], key["view"]) if key["view"] else None
    return "features", spec, False, key["depth"], key["split"], view


def _solution_key(key: Mapping[str, Any], digest: str, costs: TrialCosts) -> tuple[object, ...] | None:
    found = _feature_key({**key["of"], "precision": costs.setup.cache.feature_precision}, digest, costs)
    if found is None:
        return None
    spec = found[1]
    return ("linear", spec, False, 1) if key["kind"] == "linear_probe" else ("statistics", spec)


def _spec_of(backbone: str, side: int, costs: TrialCosts) -> ModelSpec | None:
    """The model of the search with this backbone and images of this side."""
    return next((one for one, pair in costs.sides.items() if (one.backbone, pair[0]) == (backbone, side)), None)


def room_bytes(cache: CacheSpec) -> float:
    """The largest entry that the cache of features takes."""
    if cache.features_gb is not None:
        return cache.features_gb * 1e9
    folder = first_existing(cache_directory(cache, write=False))
    return _FEATURES_FRACTION * shutil.disk_usage(folder).free
