"""The data card: what a data set holds, and what is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.data.fetch.bucket_images import RemoteReader
from tlsearch.data.image_files import tell_together
from tlsearch.data.images.file_formats import HEAD_BYTES, content_words, image_format
from tlsearch.data.index import ImageIndex, image_name
from tlsearch.data.inspect.duplicates import Duplicate, find_duplicates
from tlsearch.data.inspect.scan import Corrupt, Looks, Place, look_at
from tlsearch.data.sources.left_out import CONTENT, LeftOut, may_be_image
from tlsearch.data.sources.listing import FileReader

# Values of 16-bit files below this show as dark: those of 12 bits end at 4095, those of 14 at 16383.
_DARK = 1 << 14


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
        left_out: Files there that are not images of the set, by reason.
        notes: Lines for people: how the source was read, and what is remarkable about the images.
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
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

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
            "left_out": [one.to_json() for one in self.left_out],
            "notes": list(self.notes),
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
        return DataCard(
            index=index, counts=counts, imbalance=imbalance, modes={}, left_out=index.left_out, notes=index.notes
        )
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
        # Files that are left out belong to no split: those beside test images are for `check` alone to open.
        left_out=told_by_content(index) if include_test else index.left_out,
        notes=(*index.notes, *_image_notes(looks)),
    )


def _image_notes(looks: Looks) -> list[str]:
    """What sizes and modes do not tell."""
    notes = []
    if (several := sum(frames > 1 for frames in looks.frames)) > 0:
        notes.append(f"images with several frames or pages, of which the first is read: {several:,}")
    deep = [value for value in looks.brightest if value is not None]
    dark = [value for value in deep if 0 < value < _DARK]
    if 2 * len(dark) > len(deep):
        brightest = max(dark)
        notes.append(
            f"images of 16 bits a channel that use a small part of them: {len(dark):,} of {len(deep):,}; their largest "
            f"value is {brightest:,} ({brightest.bit_length()} bits), and 0 to 65,535 is read as black to white, so "
            f"they are dark: multiply their values by {2 ** (16 - brightest.bit_length())}"
        )
    return notes


def _per_class(classes: Sequence[str], counts: Mapping[int, int]) -> dict[str, int]:
    return {name: counts.get(label, 0) for label, name in enumerate(classes)}


def _extent(values: NDArray[np.int64]) -> Extent | None:
    if len(values) == 0:
        return None
    return Extent(min=int(values.min()), median=float(np.median(values)), max=int(values.max()))


_IMAGES = ("a JPEG 2000 image", "a JPEG XL image", "a DICOM file", "an SVG drawing", "a Photoshop document")


def told_by_content(index: ImageIndex) -> tuple[LeftOut, ...]:
    """What an index leaves out, with the files that are images by content under a reason of their own."""
    reader = index.reader
    if not isinstance(reader, FileReader | RemoteReader):
        return index.left_out

    def kind(key: str) -> str:
        try:
            head = reader.head(key, HEAD_BYTES)
        except OSError:
            return ""  # it is left out anyway
        words = content_words(head)
        return image_format(head) or (words if words in _IMAGES else "")

    left_out: list[LeftOut] = []
    images: list[str] = []
    with ThreadPoolExecutor(max_workers=min(8, (os.cpu_count() or 1) * 2)) as pool:
        for left in index.left_out:
            kinds: Iterable[str] = pool.map(kind, left.keys) if may_be_image(left) else [""] * len(left.keys)
            others = []
            for key, found in zip(left.keys, kinds, strict=True):
                if found:
                    images.append(f"{key} ({found})")
                else:
                    others.append(key)
            if others:
                left_out.append(replace(left, keys=tuple(others)))
    return (LeftOut(reason=CONTENT, keys=tuple(images)), *left_out) if images else tuple(left_out)
