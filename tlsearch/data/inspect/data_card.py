"""The data card: what a data set holds, and what is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import TASKS, Label, class_counts, classes_of, label_text
from tlsearch.core.types import PixelFormat
from tlsearch.data.fetch.bucket_images import RemoteReader
from tlsearch.data.image_files import tell_together
from tlsearch.data.images.file_formats import HEAD_BYTES, content_words, image_format, named_as_image
from tlsearch.data.index import ImageIndex
from tlsearch.data.inspect.duplicates import Duplicate, find_duplicates
from tlsearch.data.inspect.scan import Looks, Place, look_at
from tlsearch.data.sources.left_out import CONTENT, LeftOut, may_be_image
from tlsearch.data.sources.listing import FileReader

# Values of 16-bit files below this show as dark: those of 12 bits end at 4095, those of 14 at 16383.
_DARK = 1 << 14
_MAX_EXAMPLES = 5  # of files that are left out


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Of widths or heights, in pixels."""

    min: int
    median: float
    max: int


@dataclass(frozen=True, kw_only=True)
class ImagePlace:
    """An image: its path, or set and row; its split; and the name of its class, or of all of them."""

    path: str
    split: str
    label: str


@dataclass(frozen=True, kw_only=True)
class CorruptImage(ImagePlace):
    """An image that cannot be decoded, and why."""

    error: str


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """Two images that are one: by their bytes (``exact``) or by their picture (``near``)."""

    kind: Literal["exact", "near"]
    first: ImagePlace
    second: ImagePlace


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """The images of a split."""

    images: int
    per_class: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class FilesLeftOut:
    """Files that are left out for one reason; ``examples`` are the first few of them."""

    reason: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """What a data set holds; its fields are the published JSON.

    Attributes:
        source: Kind of the data set.
        imbalance: Images of train's largest class to those of its smallest.
        scanned: The splits whose images were opened; the fields below are about these.
        width: None where no image could be decoded.
        height: As width.
        modes: Images by Pillow's name of their mode; of other formats than RGB of 8 bits by channels and type.
        channels: Of the images as a model sees them.
        bits: Of each value.
        leaks: Pictures that stand in two splits.
        duplicates: Pictures that stand twice in one split.
        notes: Lines for people: how the source was read, and what is remarkable about the images.
    """

    source: str
    classes: tuple[str, ...]
    digest: str
    splits: Mapping[str, SplitCounts]
    imbalance: float
    scanned: tuple[str, ...] = ()
    width: Extent | None = None
    height: Extent | None = None
    modes: Mapping[str, int] = field(default_factory=dict)
    channels: int = 3
    bits: int = 8
    corrupt: tuple[CorruptImage, ...] = ()
    leaks: tuple[ImagePair, ...] = ()
    duplicates: tuple[ImagePair, ...] = ()
    left_out: tuple[FilesLeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def corrupt_message(self) -> str:
        """The corrupt images in one message, the first 20 by path and reason."""
        total = sum(self.splits[name].images for name in self.scanned)
        return tell_together([f"{one.path}: {one.error}" for one in self.corrupt], total)


def data_card(index: ImageIndex, *, scan: bool, include_test: bool = False) -> DataCard:
    """Describes a data set.

    Args:
        index: The data set.
        scan: Whether to open the images of train and val: for sizes, modes, corrupt files and duplicates.
        include_test: Whether to open those of test too, to find leaks. Nothing else than ``check`` may: a
            search opens no test image.
    """
    splits = {name: _counts(index.classes, split.labels) for name, split in index.splits.items()}
    train = splits["train"].per_class.values()
    card = DataCard(
        source=index.source,
        classes=index.classes,
        digest=index.digest,
        splits=splits,
        imbalance=round(max(train) / max(min(train), 1), 2),
        channels=index.pixels.channels,
        bits=index.pixels.bits,
        left_out=_left_out(index.left_out),
        notes=(*index.notes, *_label_notes(index)),
    )
    if not scan:
        return card
    scanned = tuple(name for name in index.splits if name != "test" or include_test)
    looks = look_at(index, scanned)
    pairs = find_duplicates(looks)
    return replace(
        card,
        scanned=scanned,
        width=_extent(looks.sizes[:, 0]),
        height=_extent(looks.sizes[:, 1]),
        modes=dict(Counter(looks.modes).most_common()),
        corrupt=tuple(CorruptImage(**vars(_place(index, one.place)), error=one.error) for one in looks.corrupt),
        leaks=tuple(_pair(index, pair) for pair in pairs if pair.leaks),
        duplicates=tuple(_pair(index, pair) for pair in pairs if not pair.leaks),
        # Files that are left out belong to no split: those beside test images are for `check` alone to open.
        left_out=_left_out(told_by_content(index)) if include_test else card.left_out,
        notes=(*card.notes, *_image_notes(looks, index.pixels)),
    )


def _place(index: ImageIndex, place: Place) -> ImagePlace:
    path = index.reader.name(place.key)
    return ImagePlace(path=path, split=place.split, label=label_text(place.label, index.classes))


def _pair(index: ImageIndex, pair: Duplicate) -> ImagePair:
    return ImagePair(kind=pair.kind, first=_place(index, pair.first), second=_place(index, pair.second))


def _left_out(found: Sequence[LeftOut]) -> tuple[FilesLeftOut, ...]:
    return tuple(
        FilesLeftOut(reason=one.reason, count=len(one.keys), examples=one.keys[:_MAX_EXAMPLES]) for one in found
    )


def _label_notes(index: ImageIndex) -> list[str]:
    """How many classes the images have, where that is not one."""
    if not TASKS[index.task].several:
        return []
    nums = [len(classes_of(label)) for split in index.splits.values() for label in split.labels]
    return [
        f"classes of an image: {sum(nums) / len(nums):.2f} on average, at most {max(nums)}; {nums.count(0):,} of "
        f"{len(nums):,} images have none"
    ]


def _image_notes(looks: Looks, pixels: PixelFormat) -> list[str]:
    """What sizes and modes do not tell."""
    notes = []
    if not pixels.is_rgb:
        brightest = max((value for value in looks.brightest if value is not None), default=None)
        values = "" if brightest is None else f", values up to {brightest:,}"
        notes.append(f"images are read as {pixels}{values}; mean and deviation are measured on the training images")
        return notes
    if (several := sum(frames > 1 for frames in looks.frames)) > 0:
        notes.append(f"images with several frames or pages, of which the first is read: {several:,}")
    deep = [value for value in looks.brightest if value is not None]
    dark = [value for value in deep if 0 < value < _DARK]
    if 2 * len(dark) > len(deep):
        brightest = max(dark)
        notes.append(
            f"images of 16 bits a channel that use a small part of them: {len(dark):,} of {len(deep):,}; their largest "
            f"value is {brightest:,} ({brightest.bit_length()} bits), and 0 to 65,535 is read as black to white, so "
            f"they are dark: set data.bits to 16 and leave data.channels, or multiply their values by "
            f"{2 ** (16 - brightest.bit_length())}"
        )
    return notes


def _counts(classes: Sequence[str], labels: Sequence[Label]) -> SplitCounts:
    counts = class_counts(labels)
    return SplitCounts(images=len(labels), per_class={name: counts[label] for label, name in enumerate(classes)})


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
        if named_as_image(key):
            return ""  # its name is not why it is left out
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
