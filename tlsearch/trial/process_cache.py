"""What a process keeps between trials, so that a second one lists no folder and reads no file again.

Data sets' indexes are held here; weights, mapped pixels and features, and their copies on a device, by their own
packages.
"""

from __future__ import annotations

from collections import OrderedDict

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data import ImageIndex, fold_indexes, load_index, seen_digest, with_val_in_train
from tlsearch.model import release_weights
from tlsearch.node_cache import store
from tlsearch.train import release_copies

_MAX_INDEXES = 2
_indexes: OrderedDict[tuple[DataSpec, bool], ImageIndex] = OrderedDict()
_folds: OrderedDict[tuple[DataSpec, int], tuple[ImageIndex, ...]] = OrderedDict()


def held_index(spec: DataSpec, *, refit: bool = False, digest: str = "") -> ImageIndex:
    """The data set's index; listed once per process, so a search's data must not change while it runs.

    Args:
        refit: With the images of val in train too.
        digest: Of the images that there must be, see ``seen_digest``; empty for whichever there are.

    Raises:
        DataError: See ``load_index``; or there are other images.
    """
    key = (spec, refit)
    if key not in _indexes:
        index = load_index(spec)
        if digest and seen_digest(index) != digest:
            raise DataError(
                "the images are not those that the search began with: they have changed since, or this node has others"
            )
        _indexes[key] = with_val_in_train(index) if refit else index
        while len(_indexes) > _MAX_INDEXES:
            _indexes.popitem(last=False)
    _indexes.move_to_end(key)
    return _indexes[key]


def held_folds(spec: DataSpec, num_folds: int, *, digest: str = "") -> tuple[ImageIndex, ...]:
    """The data set's folds, see ``fold_indexes``; cut once per process.

    Raises:
        DataError: See ``held_index``; or a class has fewer images than there are folds.
    """
    key = (spec, num_folds)
    if key not in _folds:
        _folds[key] = fold_indexes(held_index(spec, digest=digest), num_folds, seed=spec.split.seed)
        while len(_folds) > _MAX_INDEXES:
            _folds.popitem(last=False)
    return _folds[key]


def release_held() -> None:
    """Drops everything that this process keeps between trials."""
    _indexes.clear()
    _folds.clear()
    release_weights()
    release_copies()
    store.close()
