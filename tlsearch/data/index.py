"""What a data set holds, without a picture opened: classes, splits, labels and a digest.

Layout of an index: ``keys[i]`` has label ``labels[i]``, an index into ``classes``, or, of a multi-label task, several
of them. Keys are POSIX paths relative to ``root`` for files, row numbers for sets that a library holds; they are
sorted, so that neither the file system's order nor the platform shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from tlsearch.core.errors import DataError
from tlsearch.core.label_tasks import TASKS, Label, TaskName
from tlsearch.core.types import MAX_PIXELS, RGB8, DataSpec, PixelFormat, SplitSpec
from tlsearch.data.images.own_channels import Picture, decode_image
from tlsearch.data.sources.left_out import LeftOut
from tlsearch.data.sources.listing import Item, Listing, Reader, list_source
from tlsearch.data.splits import split_items


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split.

    Attributes:
        keys: N keys, sorted by (label, key).
        labels: N indices into the classes, or N tuples of them.
        digests: SHA-256 of each file's content; empty for the test split, which is never opened.
        groups: The group of each image, which is in one split or fold as a whole; empty where each stands alone.
    """

    keys: tuple[str, ...]
    labels: tuple[Label, ...]
    digests: tuple[bytes, ...] = ()
    groups: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rows: Sequence[int]) -> Split:
        """Some of its images, in this order."""
        return Split(
            keys=tuple(self.keys[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            digests=tuple(self.digests[row] for row in rows) if self.digests else (),
            groups=tuple(self.groups[row] for row in rows) if self.groups else (),
        )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Where a node keeps what it computes of a split: a fold's images are rows of a split that all folds share.

    Attributes:
        rows: Of ``split`` in ``index``; None for all of them.
    """

    index: ImageIndex
    split: str
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """A data set, listed.

    Attributes:
        source: One of ``tlsearch.config.data_sources``.
        root: Absolute folder that the keys are relative to; empty where images are rows, not files.
        classes: Class names in Unicode's composed form (NFC), sorted as the data spell them, or in the order of a set
            that has its own (``torchvision``, ``huggingface``); a label is an index into them.
        splits: ``train``, ``val`` and, where there is one, ``test``.
        digest: SHA-256, in hex, over classes, keys, labels and the content of train and val; of the
            test split only keys and labels count, since its files stay closed until a model is promoted.
        reader: Gives each key's encoded image.
        max_pixels: The most pixels that an image may have.
        pixels: How images are decoded.
        spellings: The class names as the data write them, which the digest counts; empty where they are ``classes``.
        left_out: Files there that are not images of the set.
        notes: Lines for the data card: how the source was read.
        doubt: A question to answer before a search begins; empty where there is none.
        shared: By split where its images are kept, of a fold; empty for a whole data set.
        task: Whether an image has one class or any number of them.
    """

    source: str
    root: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    digest: str
    reader: Reader = field(compare=False, repr=False)
    max_pixels: int = MAX_PIXELS
    pixels: PixelFormat = RGB8
    spellings: tuple[str, ...] = field(default=(), compare=False, repr=False)
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False, repr=False)
    notes: tuple[str, ...] = field(default=(), compare=False, repr=False)
    doubt: str = field(default="", compare=False, repr=False)
    shared: Mapping[str, Kept] = field(default_factory=dict, compare=False, repr=False)
    task: TaskName = "single_label"

    def kept(self, name: str) -> Kept:
        """Where a node keeps what it computes of a split."""
        return self.shared.get(name, Kept(index=self, split=name))

    def label_array(self, name: str) -> NDArray[Any]:
        """The labels of a split: int64 (N,), or of a multi-label task float32 (N, C) of 0 and 1."""
        return TASKS[self.task].array(self.split(name).labels, len(self.classes))

    def with_splits(self, splits: Mapping[str, Split]) -> ImageIndex:
        """The same data set with other images in its splits, under a digest of their own."""
        return replace(self, splits=splits, digest=_digest(self.spellings or self.classes, splits))

    def split(self, name: str) -> Split:
        """The split of that name.

        Raises:
            DataError: The data set has none.
        """
        if name not in self.splits:
            raise DataError(f"the data set has no {name!r} split, only {', '.join(self.splits)}")
        return self.splits[name]


def load_index(spec: DataSpec) -> ImageIndex:
    """Lists the images of a data set and, where it has no ready splits, splits it.

    The same content gives the same index on every machine. Files of train and val are hashed (once per
    process, while they are unchanged), none is decoded; files of test are not opened at all.

    Raises:
        DataError: The source is unknown or not there, classes are missing, empty, too small to split or
            unequal between splits, or a file cannot be read.
    """
    listing = list_source(spec)
    splits: dict[str, Split] = {}
    for name, items in _ready_splits(listing, spec.split).items():
        keys = tuple(item.key for item in items)
        digests = () if name == "test" else listing.reader.digests(keys)
        grouped = name != "test" and any(item.group != item.key for item in items)
        groups = tuple(item.group for item in items) if grouped else ()
        splits[name] = Split(keys=keys, labels=tuple(item.label for item in items), digests=digests, groups=groups)
    return ImageIndex(
        source=spec.source,
        root=listing.root,
        classes=listing.classes,
        splits=splits,
        digest=_digest(listing.spellings or listing.classes, splits),
        reader=listing.reader,
        max_pixels=spec.max_pixels,
        pixels=spec.pixel_format,
        spellings=listing.spellings,
        left_out=listing.left_out,
        notes=listing.notes,
        doubt=listing.doubt,
        task=spec.task,
    )


def seen_digest(index: ImageIndex) -> str:
    """As ``ImageIndex.digest``, over classes, train and val alone: all that the trials of a search see."""
    return _digest(
        index.spellings or index.classes, {name: split for name, split in index.splits.items() if name != "test"}
    )


def split_digest(split: Split) -> str:
    """SHA-256, in hex, over the labels of a split and the content of its images, in their order.

    Args:
        split: Not the test split, whose files stay closed.
    """
    total = hashlib.sha256(" ".join(map(str, split.labels)).encode())
    total.update(b"".join(split.digests))
    return total.hexdigest()


def read_image(
    index: ImageIndex, key: str, *, pixels: PixelFormat | None = None, hold: ExitStack | None = None
) -> Picture:
    """Decodes one image, see ``decode_image``.

    Args:
        pixels: The format that it is read in; None is that of the data set.
        hold: As of ``decode_rgb``.

    Raises:
        DataError: The file is missing, empty or corrupt, or has other channels; names its path.
    """
    data, name = index.reader.read(key), index.reader.name(key)
    return decode_image(data, name, pixels=pixels or index.pixels, max_pixels=index.max_pixels, hold=hold)


def _ready_splits(listing: Listing, split: SplitSpec) -> dict[str, tuple[Item, ...]]:
    """The listing's splits, with those that are missing cut from ``all`` or from ``train``."""
    given = dict(listing.items)
    if "all" in given:
        fractions = {"val": split.val} | ({"test": split.test} if split.test > 0 else {})
        given = split_items(given["all"], listing.classes, fractions, split.seed)
    elif "val" not in given:
        given |= split_items(given["train"], listing.classes, {"val": split.val}, split.seed)
    return {name: given[name] for name in ("train", "val", "test") if name in given}


def _digest(classes: tuple[str, ...], splits: Mapping[str, Split]) -> str:
    total = hashlib.sha256(b"tlsearch image index 1")

    def feed(text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        total.update(len(data).to_bytes(8, "little") + data)

    feed(str(len(classes)))
    for name in classes:
        feed(name)
    for name, split in splits.items():
        feed(f"{name} {len(split)}")
        for i, (key, label) in enumerate(zip(split.keys, split.labels, strict=True)):
            feed(key)
            feed(str(label))
            if split.digests:
                total.update(split.digests[i])
    return total.hexdigest()
