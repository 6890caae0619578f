"""What a process keeps between trials, so that a second one lists no folder and reads no file again.

Data sets' indexes are held here; weights, mapped pixels and mapped features by their own rooms.
"""

from __future__ import annotations

from collections import OrderedDict

from tlsearch.data import ImageIndex, close_pixels, load_index
from tlsearch.features import forget_open
from tlsearch.model import release_weights
from tlsearch.types import DataSpec

_MAX_INDEXES = 2
_indexes: OrderedDict[DataSpec, ImageIndex] = OrderedDict()


def held_index(spec: DataSpec) -> ImageIndex:
    """The data set's index; listed once per process, so a search's data must not change while it runs.

    Raises:
        DataError: See ``load_index``.
    """
    if spec not in _indexes:
        _indexes[spec] = load_index(spec)
        while len(_indexes) > _MAX_INDEXES:
            _indexes.popitem(last=False)
    _indexes.move_to_end(spec)
    return _indexes[spec]


def release_held() -> None:
    """Drops everything that this process keeps between trials."""
    _indexes.clear()
    release_weights()
    close_pixels()
    forget_open()
