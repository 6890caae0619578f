"""A table of images, CSV or Parquet: columns path, label, and perhaps split and group.

Of a multi-label task a cell names all classes of its image, as ``cat|dog``; an empty one is an image without a class.

Paths are relative to the manifest's folder. Rows of one group stay in one split. Where the column split is
there, every row fills it; a missing val is then split from train, as with folders.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlsearch.core.errors import DataError
from tlsearch.core.label_tasks import SEPARATOR, TASKS, Label, TaskName
from tlsearch.core.types import DataSpec
from tlsearch.data.fetch.bucket_images import RemoteFolder, RemoteReader
from tlsearch.data.image_files import MAX_NAMED
from tlsearch.data.sources.class_names import Classes, gather_classes, name_notes, nfc
from tlsearch.data.sources.folder_layout import read_split_names
from tlsearch.data.sources.folder_walk import FolderWalk
from tlsearch.data.sources.left_out import LeftOut
from tlsearch.data.sources.listing import FileReader, Item, Listing
from tlsearch.data.sources.manifest_rows import Row, doubtful_column, read_rows, unread_columns

_EMPTY_NAME = "{}: the label {!r} has an empty name; names stand between bars, as cat|dog"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A row with its file found: key relative to the manifest's folder; split ``all`` where none is given.

    Attributes:
        label: The cell; ``names`` are the classes in it.
    """

    place: str
    key: str
    label: str
    names: tuple[str, ...]
    split: str
    group: str | None


def list_manifest(spec: DataSpec) -> Listing:
    """Lists the images of a manifest; opens none of them.

    Raises:
        DataError: The manifest cannot be read or lacks a column, or rows break a rule: files that are not
            there, names of splits that are not known, images twice, groups torn between splits, classes
            that not every split has. Names file and line (CSV) or row (Parquet), the first 20.
    """
    if not spec.path:
        raise DataError("data.path must name a .csv, .tsv or .parquet file for data.source manifest")
    if spec.split.group_by is not None:
        raise DataError("data.split.group_by is for folders; a manifest names groups in its column 'group'")
    path, reader, holds = _opened(spec.path)
    root = str(reader.root)
    rows = read_rows(path)
    problems: list[str] = []
    splits = read_split_names({row.split for row in rows if row.split})
    several = TASKS[spec.task].several
    if not several:
        problems += _several_names(rows)
    entries = [
        entry for row in rows if (entry := _entry(row, root, holds, splits, problems, several=several)) is not None
    ]
    _check_splits(entries, rows, problems)
    _check_twice(entries, problems)
    _check_groups(entries, problems)
    _raise(path, problems)
    classes = gather_classes(name for entry in entries for name in entry.names)
    _check_classes(path, entries, classes.names)
    unread = unread_columns(path)
    odd = doubtful_column(unread)
    return Listing(
        root=root,
        reader=reader,
        classes=classes.names,
        spellings=classes.spellings,
        items=_items(entries, classes, several=several),
        left_out=_unnamed(spec.path, path, entries),
        notes=(*([f"columns that are not read: {', '.join(unread)}"] if unread else []), *name_notes(classes.names)),
        doubt=f"{path}: the column {odd!r} is not read; call it {odd.lower()!r}, or something else" if odd else "",
    )


def table_task(place: str) -> TaskName:
    """The task of a table: multi-label where cells name several classes that other cells name too.

    Raises:
        DataError: The table cannot be read.
    """
    return "multi_label" if _several_names(read_rows(_opened(place)[0])) else "single_label"


def _unnamed(place: str, path: Path, entries: Sequence[_Entry]) -> tuple[LeftOut, ...]:
    """The files that lie beside the manifest's images and are in no row."""
    walk = FolderWalk(RemoteFolder.open(place.rpartition("/")[0]) if "://" in place else path.absolute().parent)
    known = {path.name, *(entry.key for entry in entries)}
    for folder in sorted({entry.key.rpartition("/")[0] for entry in entries}):
        walk.note_strays(folder, known, "images that no row names")
    return walk.left_out()


def _opened(place: str) -> tuple[Path, FileReader | RemoteReader, Callable[[str], bool] | None]:
    """The manifest on this machine, who reads its images, and, for a bucket, whether it holds a key.

    Raises:
        DataError: A bucket cannot be listed, or does not hold the manifest.
    """
    if "://" not in place:
        path = Path(place)
        return path, FileReader(root=str(path.absolute().parent)), None
    folder, _, name = place.rpartition("/")
    reader = RemoteFolder.open(folder).reader()
    if name not in reader.files:
        raise DataError(f"data.path must be a file: {place} does not exist")
    reader.read(name)  # for its errors
    return reader.root / name, reader, lambda key: key in reader.files


def _entry(
    row: Row,
    root: str,
    holds: Callable[[str], bool] | None,
    splits: Mapping[str, str],
    problems: list[str],
    *,
    several: bool,
) -> _Entry | None:
    """The row's entry; None, with its errors listed, where it cannot be used."""
    found = []
    if not row.path:
        found.append(f"{row.place}: the path is empty")
    elif holds is not None and not holds(os.path.normpath(row.path)):
        found.append(f"{row.place}: {row.path} does not exist beside the manifest")
    elif holds is None and not os.path.isfile(os.path.join(root, row.path)):
        state = "is not a file" if os.path.exists(os.path.join(root, row.path)) else "does not exist"
        if "\\" in row.path:
            state += "; slashes stand between folders"
        found.append(f"{row.place}: {os.path.normpath(os.path.join(root, row.path))} {state}")
    names = _names(row.label) if several else (row.label,)
    if not all(names):
        found.append(f"{row.place}: the label is empty" if not several else _EMPTY_NAME.format(row.place, row.label))
    split = splits.get(row.split or "", "")
    if row.split and not split:
        found.append(f"{row.place}: the split must be train, val or test, not {row.split!r}")
    problems += found
    if found:
        return None
    # Relative, so that the digest does not depend on where the folder stands.
    key = os.path.relpath(row.path, root) if os.path.isabs(row.path) else os.path.normpath(row.path)
    return _Entry(
        place=row.place,
        key=Path(key).as_posix(),
        label=row.label,
        names=names,
        split=split if row.split else "all",
        group=row.group or None,
    )


def _names(cell: str) -> tuple[str, ...]:
    """The classes that a cell names, spaces around them removed."""
    return tuple(name.strip() for name in cell.split(SEPARATOR)) if cell else ()


def _several_names(rows: Sequence[Row]) -> list[str]:
    """Cells with several names of classes that other cells name too: a label with a bar in it may be one class."""
    cells = {row.label for row in rows}
    counts = Counter(name for cell in cells for name in set(_names(cell)))
    return [
        f"{row.place}: the label {row.label!r} names several classes, and data.task is single_label: set data.task to "
        "multi_label, or give each image one class"
        for row in rows
        if SEPARATOR in row.label and any(counts[name] > 1 for name in _names(row.label))
    ]


def _check_splits(entries: Sequence[_Entry], rows: Sequence[Row], problems: list[str]) -> None:
    named = [row for row in rows if row.split]
    if named and len(named) < len(rows):
        problems += [f"{row.place}: the split is empty, though other rows have one" for row in rows if not row.split]
    elif named and entries and not any(entry.split == "train" for entry in entries):
        problems.append(f"{named[0].place}: no row of the split train")


def _check_twice(entries: Iterable[_Entry], problems: list[str]) -> None:
    seen: dict[str, _Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.key, entry)
        if first is entry:
            continue
        differ = [
            f"{what} {mine!r} and {theirs!r}"
            for what, mine, theirs in (("labels", first.label, entry.label), ("splits", first.split, entry.split))
            if mine != theirs
        ]
        detail = f", with the {' and the '.join(differ)}" if differ else ""
        problems.append(f"{entry.place}: {entry.key} stands already in {_short(first.place)}{detail}")


def _check_groups(entries: Iterable[_Entry], problems: list[str]) -> None:
    homes: dict[str, _Entry] = {}
    for entry in entries:
        if entry.group is None:
            continue
        first = homes.setdefault(entry.group, entry)
        if first.split != entry.split:
            problems.append(
                f"{entry.place}: the group {entry.group!r} is in {entry.split} here, "
                f"in {first.split} in {_short(first.place)}"
            )


def _short(place: str) -> str:
    """``line 3`` of ``/data/images.csv, line 3``."""
    return place.rpartition(", ")[2]


def _raise(path: Path, problems: Sequence[str]) -> None:
    if not problems:
        return
    lines = [f"{path}: {len(problems)} errors:"] if len(problems) > 1 else []
    indent = "  " if lines else ""
    lines += [indent + problem for problem in problems[:MAX_NAMED]]
    if len(problems) > MAX_NAMED:
        lines.append(f"  and {len(problems) - MAX_NAMED} more")
    raise DataError("\n".join(lines))


def _check_classes(path: Path, entries: Sequence[_Entry], classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise DataError(f"{path}: at least 2 classes are needed, the column label has {', '.join(classes) or 'none'}")
    present: dict[str, set[str]] = defaultdict(set)
    first: dict[str, str] = {}
    for entry in entries:
        present[entry.split].update(nfc(name) for name in entry.names)
        for name in entry.names:
            first.setdefault(nfc(name), entry.place)
    problems = [
        f"{first[label]}: the class {label!r} has no image in {split}; every split must have all classes"
        for label in classes
        for split in present
        if label not in present[split]
    ]
    _raise(path, problems)


def _items(entries: Sequence[_Entry], classes: Classes, *, several: bool) -> dict[str, tuple[Item, ...]]:
    labels = {name: label for label, name in enumerate(classes.names)}
    items: dict[str, list[Item]] = defaultdict(list)
    for entry in entries:
        # The prefixes keep a group called like another image's path apart from it.
        group = f"group {entry.group}" if entry.group is not None else f"image {entry.key}"
        own = sorted({labels[nfc(name)] for name in entry.names})
        label: Label = tuple(own) if several else own[0]
        items[entry.split].append(Item(key=entry.key, label=label, group=group))
    order = [name for name in ("all", "train", "val", "test") if name in items]
    return {name: tuple(sorted(items[name], key=lambda item: (item.label, item.key))) for name in order}
