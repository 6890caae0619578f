"""Any of torchvision's classification sets by its class name, with the splits it has itself.

One adapter for all: which splits there are is read from the signature (``train=`` or ``split=``); labels and
files from the lists that the sets keep, if these agree with the items that the set gives; else from the
items, one by one.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.files import IMAGE_BYTES, open_regular
from tlsearch.core.types import CacheSpec, DataSpec
from tlsearch.data.libraries.confined import confined
from tlsearch.data.libraries.library_rows import hash_rows, label_parts, row_key, split_key, unread_files
from tlsearch.data.libraries.torchvision_open import find_set, open_parts
from tlsearch.data.libraries.torchvision_sets_table import READABLE
from tlsearch.data.sources.folder_walk import refuse_circles
from tlsearch.data.sources.listing import FileReader, Listing, encode
from tlsearch.node_cache.locked_files import cache_directory, keep

_LABELS = ("targets", "labels", "_labels", "y")
_PAIRS = ("samples", "_samples", "imgs")
_FILES = ("_image_files", "_images")
_NUM_PROBED = 16  # items compared with what the set's own lists say


def list_torchvision(spec: DataSpec) -> Listing:
    """Lists a set; images that are files are not opened, but for a few of train that are compared.

    A set that keeps no list of labels (FakeData) is read whole, its test images included.

    Raises:
        DataError: No such set, one that is not for classification, one that is not on this machine where
            ``data.download`` is false, or a download that failed.
    """
    dataset_class = find_set(spec)
    root = Path(spec.path) if spec.path else cache_directory(CacheSpec()) / "datasets"
    name = f"torchvision's {spec.name}"
    if spec.path and READABLE[str(spec.name)].follows and root.is_dir():
        refuse_circles(root)
    parts = open_parts(dataset_class, spec, root)
    if not spec.path:
        keep(root)
    first = next(iter(parts.values()))
    for dataset in parts.values():
        _check_files(_stored_files(dataset) or [], root, name)
    lists_labels, lists_files = _probe(first, name)
    labels = {part: _labels(dataset, name, lists_labels) for part, dataset in parts.items()}
    if lists_files:
        files = {part: _relative(_stored_files(dataset), root) for part, dataset in parts.items()}
        home = str(root.absolute())
        reader = FileReader(root=home)
        found = label_parts(
            name, _class_names(first), labels, lambda part, row: files[part][row], reader=reader, root=home
        )
        if spec.name != "ImageFolder":  # other sets' folders hold what belongs to the set
            return found
        unread = unread_files(str(root), [str(root / one) for paths in files.values() for one in paths])
        return replace(found, left_out=(*found.left_out, *unread))
    sizes = {part: len(values) for part, values in labels.items()}
    rows = TorchvisionReader(set_name=name, parts=parts)
    return label_parts(
        name, _class_names(first), labels, lambda part, row: row_key(part, row, sizes[part]), reader=rows
    )


@dataclass(frozen=True, kw_only=True)
class TorchvisionReader:
    """Rows of sets that hold their images in memory, each as a lossless file."""

    set_name: str
    parts: dict[str, Any]
    lock: Lock = field(default_factory=Lock)  # sets need not bear several threads: FakeData seeds the global generator

    def read(self, key: str) -> bytes:
        """The row's image, encoded."""
        part, row = split_key(key)
        with self.lock:
            image, _ = _item(self.parts[part], row, self.name(key))
        return encode(image)

    def name(self, key: str) -> str:
        """The set, the part and the row."""
        part, row = split_key(key)
        return f"{self.set_name} {part} row {row}"

    def digests(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """Of each row's encoded image."""
        return hash_rows(keys, self.read)


def _probe(dataset: Any, name: str) -> tuple[bool, bool]:
    """Whether the lists that a set keeps, of labels and of files, agree with the items it gives."""
    if len(dataset) == 0:
        raise DataError(f"{name}: has no images")
    labels, files = _stored_labels(dataset), _stored_files(dataset)
    labels_agree, files_agree = labels is not None, files is not None
    for row in range(0, len(dataset), -(-len(dataset) // _NUM_PROBED)):
        image, label = _item(dataset, row, f"{name} row {row}")
        labels_agree = labels_agree and labels is not None and labels[row] == label
        files_agree = files_agree and files is not None and _shows(files[row], image)
    return labels_agree, files_agree


def _item(dataset: Any, row: int, name: str) -> tuple[Image.Image, int]:
    try:
        with confined():
            item = dataset[row]
    except Exception as error:  # whatever a library raises for a broken file
        raise DataError(f"{name}: cannot be read: {error}") from error
    kinds = [type(one).__name__ for one in item] if isinstance(item, tuple) else [type(item).__name__]
    try:
        image, label = item
        if isinstance(image, Image.Image):
            return image, operator.index(label)
    except (TypeError, ValueError):
        pass
    raise DataError(f"{name}: an item must be an image and a label, not {', '.join(kinds)}: no set for classification")


def _labels(dataset: Any, name: str, trusted: bool) -> list[int]:
    stored = _stored_labels(dataset) if trusted else None
    if stored is not None:
        return stored
    return [_item(dataset, row, f"{name} row {row}")[1] for row in range(len(dataset))]


def _stored_labels(dataset: Any) -> list[int] | None:
    for name in (*_LABELS, *_PAIRS):
        values = getattr(dataset, name, None)
        if values is None or not hasattr(values, "__len__") or len(values) != len(dataset):
            continue
        try:
            return [operator.index(value[1] if name in _PAIRS else value) for value in values]
        except (TypeError, ValueError, IndexError):  # not labels after all
            continue
    return None


def _stored_files(dataset: Any) -> list[str] | None:
    for name in (*_PAIRS, *_FILES):
        values = getattr(dataset, name, None)
        if not isinstance(values, list) or len(values) != len(dataset):
            continue
        paths = [value[0] if name in _PAIRS else value for value in values]
        if all(isinstance(path, (str, Path)) for path in paths):
            return [str(path) for path in paths]
    return None


def _shows(path: str, image: Image.Image) -> bool:
    """Whether the file holds that image; how it is then decoded is ours (``decode_rgb``)."""
    try:
        with open_regular(path, IMAGE_BYTES) as file, Image.open(file) as stored:
            return stored.size == image.size and stored.convert("RGB").tobytes() == image.convert("RGB").tobytes()
    except Exception:  # then the set's own items are used
        return False


def _check_files(files: Sequence[str], root: Path, name: str) -> None:
    """Lists that lie with a set name its images: none may be elsewhere. Links in the folder are the user's own."""
    for path in files:
        if os.path.relpath(path, root).split(os.sep)[0] == os.pardir:
            raise DataError(f"{name}: names a file outside of {root}: {path}")


def _relative(files: list[str] | None, root: Path) -> list[str]:
    assert files is not None, "every part of a set keeps the same lists"
    return [Path(os.path.relpath(path, root)).as_posix() for path in files]


def _class_names(dataset: Any) -> list[str]:
    for name in ("classes", "categories"):
        names = getattr(dataset, name, None)
        if isinstance(names, (list, tuple)) and names:
            # ImageNet gives the synonyms of each class.
            return [", ".join(one) if isinstance(one, (list, tuple)) else str(one) for one in names]
    numbers = getattr(dataset, "class_to_idx", None)
    if isinstance(numbers, dict) and sorted(numbers.values()) == list(range(len(numbers))):
        return sorted(numbers, key=numbers.__getitem__)
    return []
