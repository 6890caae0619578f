"""Sets that a library holds: parts (its own splits) of labelled rows, made a listing."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tlsearch.core.errors import DataError
from tlsearch.data.image_files import raise_together
from tlsearch.data.sources.class_names import name_notes, nfc
from tlsearch.data.sources.folder_walk import FolderWalk
from tlsearch.data.sources.left_out import LeftOut
from tlsearch.data.sources.listing import Item, Listing, Reader


def row_key(part: str, row: int, num_rows: int) -> str:
    """The key of a row: ``train/00042``, with as many digits as the part's last row needs."""
    return f"{part}/{row:0{len(str(max(num_rows - 1, 0)))}d}"


def split_key(key: str) -> tuple[str, int]:
    """Part and row of a key."""
    part, _, row = key.rpartition("/")
    return part, int(row)


def label_parts(
    name: str,
    class_names: Sequence[str],
    labels: Mapping[str, Sequence[int]],
    key_of: Callable[[str, int], str],
    *,
    reader: Reader,
    root: str = "",
) -> Listing:
    """The listing of a set, in the set's own class order.

    Rows with a negative label have none and are left out, as is a part without any label (a hidden test
    split). Classes that no image has are left out too. Two names that are Unicode forms of one are one class. A single
    part counts as not split at all.

    Args:
        name: What messages call the set.
        class_names: By the set's own label.
        labels: By part, ``train`` or ``all`` among them.
        key_of: Key of a part's row.
        reader: Gives each key's encoded image.
        root: As of ``Listing``.

    Raises:
        DataError: Fewer than two classes, or images to validate or test of a class that train has none of.
    """
    parts = {}
    unlabelled: list[str] = []
    num_labels = 1 + max((label for values in labels.values() for label in values), default=-1)
    names, same = _distinct(class_names, num_labels)
    for part, values in labels.items():
        rows = [(same[label], key_of(part, row)) for row, label in enumerate(values) if label >= 0]
        unlabelled += [key_of(part, row) for row, label in enumerate(values) if label < 0]
        if rows:
            parts[part] = rows
    if len(parts) == 1:
        parts = {"all": next(iter(parts.values()))}
    first = next((part for part in ("train", "all") if part in parts), None)
    if first is None:
        raise DataError(f"{name}: has no labelled images to train on, only {', '.join(parts) or 'none'}")
    present = {part: {label for label, _ in rows} for part, rows in parts.items()}
    used = sorted(present[first])
    if len(used) < 2:
        raise DataError(f"{name}: at least 2 classes are needed, its images have {len(used)}")
    notes = _check_parts(name, names, present, first)
    position = {label: number for number, label in enumerate(used)}
    items = {
        part: tuple(Item(key=key, label=position[label], group=key) for label, key in sorted(rows))
        for part, rows in parts.items()
    }
    classes = tuple(nfc(names[label]) for label in used)
    return Listing(
        root=root,
        reader=reader,
        classes=classes,
        spellings=tuple(names[label] for label in used),
        items=items,
        left_out=(LeftOut(reason="rows without a label", keys=tuple(unlabelled)),) if unlabelled else (),
        notes=(*notes, *name_notes(classes)),
    )


def unread_files(folder: str, read: Iterable[str]) -> tuple[LeftOut, ...]:
    """What lies in a folder of image files and is not among those that a library reads.

    Args:
        folder: Where the library looked.
        read: Paths of the files it gives.
    """
    known = {os.path.realpath(path) for path in read}
    walk = FolderWalk(Path(folder).absolute())
    unread = [key for key in walk.images("") if os.path.realpath(walk.root / key) not in known]
    walk.leave_out("images that the library does not read", unread)
    return walk.left_out()


def hash_rows(keys: Sequence[str], read: Callable[[str], bytes]) -> tuple[bytes, ...]:
    """SHA-256 of each row.

    Raises:
        DataError: Rows cannot be read; names the first 20.
    """
    digests, failures = [], []
    for key in keys:
        try:
            digests.append(hashlib.sha256(read(key)).digest())
        except DataError as error:
            failures.append(str(error))
    raise_together(failures, len(keys))
    return tuple(digests)


def _distinct(class_names: Sequence[str], num_labels: int) -> tuple[list[str], list[int]]:
    """A name for each label, and the label that it stands for.

    A name that several labels share (ImageNet's two cranes) gets the label added. Names that are Unicode forms of one
    are one class, the first of them.
    """
    names = [*class_names, *(str(label) for label in range(len(class_names), num_labels))]
    counts = Counter(names)
    names = [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(names)]
    first: dict[str, int] = {}
    same = [first.setdefault(nfc(name), label) for label, name in enumerate(names)]
    shared = Counter(same)
    return [nfc(name) if shared[same[label]] > 1 else name for label, name in enumerate(names)], same


def _check_parts(name: str, names: Sequence[str], present: Mapping[str, set[int]], first: str) -> list[str]:
    notes = []
    for part, labels in present.items():
        if unknown := sorted(labels - present[first]):
            listed = ", ".join(repr(names[label]) for label in unknown[:20])
            raise DataError(f"{name}: {part} has images of {len(unknown)} classes that {first} has none of: {listed}")
        if missing := sorted(present[first] - labels):
            listed = ", ".join(repr(names[label]) for label in missing[:20])
            notes.append(f"{part} has no image of {len(missing)} classes: {listed}")
    return notes
