"""What a data set holds, without a picture opened: classes, splits, labels and a digest.

Layout of an index: ``keys[i]`` has label ``labels[i]``, an index into ``classes``. Keys are POSIX paths
relative to ``root`` for files, row numbers for bundled sets; they are sorted, so that neither the file
system's order nor the platform shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tlsearch.data import digits, folder
from tlsearch.data.contents import file_digests
from tlsearch.data.decode import decode_rgb
from tlsearch.data.listing import Item, Listing
from tlsearch.data.splits import split_items
from tlsearch.errors import DataError
from tlsearch.types import DataSpec, SplitSpec

SOURCES = ("folder", "digits")


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split.

    Attributes:
        keys: N keys, sorted by (label, key).
        labels: N indices into the classes.
        digests: SHA-256 of each file's content; empty for the test split, which nobody opens.
    """

    keys: tuple[str, ...]
    labels: tuple[int, ...]
    digests: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """A data set, listed.

    Attributes:
        source: One of SOURCES.
        root: Absolute folder that the keys are relative to; empty for bundled sets.
        classes: Class names, sorted; a label is an index into them.
        splits: ``train``, ``val`` and, where there is one, ``test``.
        digest: SHA-256, in hex, over classes, keys, labels and the content of train and val; of the
            test split only keys and labels count, since its files stay closed until a model is promoted.
    """

    source: str
    root: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    digest: str

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
    listing = _list(spec)
    splits: dict[str, Split] = {}
    for name, items in _ready_splits(listing, spec.split).items():
        keys = tuple(item.key for item in items)
        digests = () if name == "test" else _digests(spec.source, listing.root, keys)
        splits[name] = Split(keys=keys, labels=tuple(item.label for item in items), digests=digests)
    return ImageIndex(
        source=spec.source,
        root=listing.root,
        classes=listing.classes,
        splits=splits,
        digest=_digest(listing.classes, splits),
    )


def read_image(index: ImageIndex, key: str) -> Image.Image:
    """Decodes one image to upright RGB, see ``decode_rgb``.

    Raises:
        DataError: The file is missing, empty or corrupt; names its path.
    """
    return decode_rgb(read_bytes(index, key), image_name(index, key))


def read_bytes(index: ImageIndex, key: str) -> bytes:
    """The encoded bytes of one image.

    Raises:
        DataError: The file cannot be read.
    """
    if index.source == "digits":
        return digits.encoded(key)
    try:
        return Path(index.root, key).read_bytes()
    except OSError as error:
        raise DataError(f"{image_name(index, key)}: cannot be read: {error.strerror or error}") from error


def image_name(index: ImageIndex, key: str) -> str:
    """How messages name an image: its path, or the bundled set and row."""
    return str(Path(index.root, key)) if index.root else f"{index.source} row {key}"


def _list(spec: DataSpec) -> Listing:
    if spec.source == "digits":
        return digits.list_digits(spec)
    if spec.source == "folder":
        return folder.list_folder(spec)
    raise DataError(f"data.source must be one of {', '.join(SOURCES)}, not {spec.source!r}")


def _ready_splits(listing: Listing, split: SplitSpec) -> dict[str, tuple[Item, ...]]:
    """The listing's splits, with those that are missing cut from ``all`` or from ``train``."""
    given = dict(listing.items)
    if "all" in given:
        fractions = {"val": split.val} | ({"test": split.test} if split.test > 0 else {})
        given = split_items(given["all"], listing.classes, fractions, split.seed)
    elif "val" not in given:
        given |= split_items(given["train"], listing.classes, {"val": split.val}, split.seed)
    return {name: given[name] for name in ("train", "val", "test") if name in given}


def _digests(source: str, root: str, keys: tuple[str, ...]) -> tuple[bytes, ...]:
    if source == "digits":
        return tuple(hashlib.sha256(digits.encoded(key)).digest() for key in keys)
    return file_digests(root, keys)


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
