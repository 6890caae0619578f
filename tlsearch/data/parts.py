"""Sets that a library holds: parts (its own splits) of labelled rows, made a listing."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tlsearch.data.failures import raise_together
from tlsearch.data.listing import Item
from tlsearch.errors import DataError

logger = logging.getLogger(__name__)

Classes = tuple[str, ...]
Items = dict[str, tuple[Item, ...]]


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
) -> tuple[Classes, Items]:
    """Classes and items of a set, in the set's own class order.

    Rows with a negative label have none and are left out, as is a part without any label (a hidden test
    split). Classes that no image has are left out too. A single part counts as not split at all.

    Args:
        name: What messages call the set.
        class_names: By the set's own label.
        labels: By part, ``train`` or ``all`` among them.
        key_of: Key of a part's row.

    Raises:
        DataError: Fewer than two classes, or images to validate or test of a class that train has none of.
    """
    parts = {}
    for part, values in labels.items():
        rows = [(label, key_of(part, row)) for row, label in enumerate(values) if label >= 0]
        if len(rows) < len(values):
            logger.warning("%s: left out, since they have no label: %d of %s", name, len(values) - len(rows), part)
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
    names = _distinct(class_names, max(max(one) for one in present.values()) + 1)
    _check_parts(name, names, present, first)
    position = {label: number for number, label in enumerate(used)}
    items = {
        part: tuple(Item(key=key, label=position[label], group=key) for label, key in sorted(rows))
        for part, rows in parts.items()
    }
    return tuple(names[label] for label in used), items


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


def _distinct(class_names: Sequence[str], num_labels: int) -> list[str]:
    """A name for each label; a name that several labels share (ImageNet's two cranes) gets the label added."""
    names = [*class_names, *(str(label) for label in range(len(class_names), num_labels))]
    counts = Counter(names)
    return [f"{name} ({label})" if counts[name] > 1 else name for label, name in enumerate(names)]


def _check_parts(name: str, names: Sequence[str], present: Mapping[str, set[int]], first: str) -> None:
    for part, labels in present.items():
        if unknown := sorted(labels - present[first]):
            listed = ", ".join(repr(names[label]) for label in unknown[:20])
            raise DataError(f"{name}: {part} has images of {len(unknown)} classes that {first} has none of: {listed}")
        if missing := sorted(present[first] - labels):
            listed = ", ".join(repr(names[label]) for label in missing[:20])
            logger.warning("%s: %s has no image of %d classes: %s", name, part, len(missing), listed)
