"""The data card: what a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.data.duplicates import Duplicate, find_duplicates
from tlsearch.data.failures import tell_together
from tlsearch.data.index import ImageIndex, image_name
from tlsearch.data.looks import Corrupt, Place, look_at


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Of widths or heights, in pixels."""

    min: int
    median: float
    max: int


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """What a data set holds.

    Attributes:
        counts: Images by split and class name.
        imbalance: Images of train's largest class to those of its smallest.
        scanned: The splits whose images were opened; the fields below are about these.
        width: None where no image could be decoded.
        height: As width.
        modes: Images by Pillow's name of their mode.
        corrupt: Images that cannot be decoded.
        leaks: Pictures that stand in two splits.
        duplicates: Pictures that stand twice in one split.
    """

    index: ImageIndex
    counts: Mapping[str, Mapping[str, int]]
    imbalance: float
    scanned: tuple[str, ...] = ()
    width: Extent | None = None
    height: Extent | None = None
    modes: Mapping[str, int]
    corrupt: tuple[Corrupt, ...] = ()
    leaks: tuple[Duplicate, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; images with path, split and label."""
        return {
            "source": self.index.source,
            "classes": list(self.index.classes),
            "digest": self.index.digest,
            "splits": {
                name: {"images": sum(counts.values()), "per_class": dict(counts)}
                for name, counts in self.counts.items()
            },
            "imbalance": round(self.imbalance, 2),
            "scanned": list(self.scanned),
            "width": vars(self.width) if self.width else None,
            "height": vars(self.height) if self.height else None,
            "modes": dict(self.modes),
            "corrupt": [{**self._image(one.place), "error": one.error} for one in self.corrupt],
            "leaks": [self._pair(pair) for pair in self.leaks],
            "duplicates": [self._pair(pair) for pair in self.duplicates],
        }

    def corrupt_message(self) -> str:
        """The corrupt images in one message, the first 20 by path and reason."""
        total = sum(sum(self.counts[name].values()) for name in self.scanned)
        return tell_together([f"{image_name(self.index, one.place.key)}: {one.error}" for one in self.corrupt], total)

    def _image(self, place: Place) -> dict[str, str]:
        path = image_name(self.index, place.key)
        return {"path": path, "split": place.split, "label": self.index.classes[place.label]}

    def _pair(self, pair: Duplicate) -> dict[str, Any]:
        return {"kind": pair.kind, "first": self._image(pair.first), "second": self._image(pair.second)}


def data_card(index: ImageIndex, *, scan: bool, include_test: bool = False) -> DataCard:
    """Describes a data set.

    Args:
        index: The data set.
        scan: Whether to open the images of train and val: for sizes, modes, corrupt files and duplicates.
        include_test: Whether to open those of test too, to find leaks. Nothing else than ``check`` may: a
            search opens no test image.
    """
    counts = {name: _per_class(index.classes, Counter(split.labels)) for name, split in index.splits.items()}
    train = counts["train"].values()
    imbalance = max(train) / max(min(train), 1)
    if not scan:
        return DataCard(index=index, counts=counts, imbalance=imbalance, modes={})
    scanned = tuple(name for name in index.splits if name != "test" or include_test)
    looks = look_at(index, scanned)
    pairs = find_duplicates(looks)
    return DataCard(
        index=index,
        counts=counts,
        imbalance=imbalance,
        scanned=scanned,
        width=_extent(looks.sizes[:, 0]),
        height=_extent(looks.sizes[:, 1]),
        modes=dict(Counter(looks.modes).most_common()),
        corrupt=looks.corrupt,
        leaks=tuple(pair for pair in pairs if pair.leaks),
        duplicates=tuple(pair for pair in pairs if not pair.leaks),
    )


def _per_class(classes: Sequence[str], counts: Mapping[int, int]) -> dict[str, int]:
    return {name: counts.get(label, 0) for label, name in enumerate(classes)}


def _extent(values: NDArray[np.int64]) -> Extent | None:
    if len(values) == 0:
        return None
    return Extent(min=int(values.min()), median=float(np.median(values)), max=int(values.max()))
