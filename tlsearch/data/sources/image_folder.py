"""Images in folders: train/ val/ (test/) with one folder per class in each, or one folder per class.

Names of splits count in any usual spelling (``split_names``). Images count at any depth below a class folder;
``folder_walk`` says which files are images.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlsearch.core.errors import DataError
from tlsearch.core.text import last_line
from tlsearch.core.types import DataSpec
from tlsearch.data.fetch.bucket_images import RemoteFolder
from tlsearch.data.image_files import quoted
from tlsearch.data.images.file_formats import FORMATS
from tlsearch.data.sources.class_names import Classes, gather_classes, name_notes, near_equal, nfc
from tlsearch.data.sources.folder_layout import doubt, spelling_note, split_folders
from tlsearch.data.sources.folder_walk import Folder, FolderWalk
from tlsearch.data.sources.listing import FileReader, Item, Listing

logger = logging.getLogger(__name__)

_MAX_NESTED = 5  # folders inside classes that the card names


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A split, or all: its folder relative to the root, and the keys of its images by class folder as it is written."""

    folder: str
    images: Mapping[str, list[str]]

    def path(self, key: str) -> str:
        """An image's path relative to its class folder."""
        return key.removeprefix(f"{self.folder}/" if self.folder else "").partition("/")[2]

    def by_class(self) -> dict[str, list[str]]:
        """The images by class; a class that is written in two Unicode forms has those of both folders."""
        merged: dict[str, list[str]] = defaultdict(list)
        for written, keys in self.images.items():
            merged[nfc(written)] += keys
        return dict(merged)


def list_folder(spec: DataSpec) -> Listing:
    """Lists a folder of images; opens none.

    Raises:
        DataError: No such folder, no or one class, an empty class, classes that differ between splits, two folders for
            one split, or a ``group_by`` that is not a regular expression or does not match every image.
    """
    if not spec.path:
        raise DataError("data.path must name a folder for data.source folder")
    root: Folder = RemoteFolder.open(spec.path) if "://" in spec.path else Path(spec.path).absolute()
    if not root.is_dir():
        raise DataError(f"data.path must be a folder: {spec.path} {'is a file' if root.exists() else 'does not exist'}")
    walk = FolderWalk(root)
    walk.note_strays("")
    _refuse_broken_links(walk, "")
    folders = split_folders(walk)
    parts = {name: _part(walk, folder) for name, folder in folders.items()}
    _check_classes(walk, parts)
    classes = gather_classes(written for part in parts.values() for written in part.images)
    group_by, ready = spec.split.group_by, "val" in parts
    if ready and group_by is not None:
        logger.warning("data.split.group_by has no effect but on search.folds: %s has ready splits", root)
    items = {
        name: _items(root, classes, part, None if name == "test" else group_by, strict=not ready)
        for name, part in parts.items()
    }
    reader = root.reader() if isinstance(root, RemoteFolder) else FileReader(root=str(root))
    return Listing(
        root=str(reader.root),
        reader=reader,
        classes=classes.names,
        spellings=classes.spellings,
        items=items,
        left_out=walk.left_out(),
        notes=_notes(folders, parts, classes),
        doubt="" if spec.layout == "classes" or "all" not in parts else doubt(walk, parts["all"].images),
    )


def _part(walk: FolderWalk, folder: str) -> _Part:
    if folder:
        walk.note_strays(folder)
        _refuse_broken_links(walk, folder)
    prefix = f"{folder}/" if folder else ""
    return _Part(folder=folder, images={name: walk.images(prefix + name) for name in walk.folders(folder)})


def _refuse_broken_links(walk: FolderWalk, folder: str) -> None:
    if lost := walk.broken_links(folder):
        raise DataError(
            f"{walk.place(folder)}: links that lead nowhere, so that a split or a class may be missing: "
            f"{quoted(lost)}; mount what they point to, or remove them"
        )


def _check_classes(walk: FolderWalk, parts: Mapping[str, _Part]) -> None:
    found = {name: part.by_class() for name, part in parts.items()}
    for name, part in parts.items():
        place = walk.place(part.folder)
        if not part.images:
            raise DataError(f"{place}: no class folders; images must stand in one folder per class")
        if empty := sorted(c for c, keys in found[name].items() if not keys):
            suffixes = " ".join(suffixes[0][1:] for suffixes in FORMATS.values())
            raise DataError(
                f"{place}: class folders without an image ({suffixes} ...): {_what_is_in(walk, part, empty)}; "
                "fill or remove them"
            )
        if bad := [c for c in part.images if not _is_utf8(c)]:
            raise DataError(f"{place}: class names must be valid UTF-8: {quoted(bad)}")
        if len(found[name]) == 1:
            only = next(iter(part.images))
            inside = f"{part.folder}/{only}" if part.folder else only
            hint = f"; did you mean {walk.place(inside)}?" if len(walk.folders(inside)) > 1 else ""
            raise DataError(f"{place}: only one class folder, {only}/; at least 2 are needed{hint}")
    first = next(iter(found))
    problems = []
    for name, images in found.items():
        missing = sorted(found[first].keys() - images.keys())
        extra = sorted(images.keys() - found[first].keys())
        problems += [f"{parts[name].folder}/ lacks {quoted(missing)}"] if missing else []
        problems += [f"{parts[name].folder}/ has {quoted(extra)} in addition"] if extra else []
        problems += [f"{' and '.join(map(repr, group))} nearly agree" for group in near_equal([*missing, *extra])]
    if problems:
        folder = parts[first].folder
        raise DataError(f"{walk.root}: every split must have the classes of {folder}/: {'; '.join(problems)}")


def _what_is_in(walk: FolderWalk, part: _Part, names: Sequence[str]) -> str:
    """Folders without images, with what they hold instead."""
    shown = []
    for name in names[:20]:
        prefixes = [f"{part.folder}/{one}/" if part.folder else f"{one}/" for one in part.images if nfc(one) == name]
        holds = {
            left.reason: number
            for left in walk.left_out()
            if (number := sum(key.startswith(tuple(prefixes)) for key in left.keys))
        }
        detail = ", ".join(f"{reason}: {number}" for reason, number in holds.items())
        shown.append(f"{name!r}{f' (it holds {detail})' if detail else ''}")
    return ", ".join(shown) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _notes(folders: Mapping[str, str], parts: Mapping[str, _Part], classes: Classes) -> tuple[str, ...]:
    """What the card says of how the folder was read."""
    notes = [] if "all" in folders else [spelling_note(folders)]
    forms: dict[str, set[str]] = defaultdict(set)
    nested: dict[str, int] = defaultdict(int)
    for part in parts.values():
        for written, keys in part.images.items():
            forms[nfc(written)].add(written)
            for key in keys:
                if "/" in (path := part.path(key)):
                    nested[f"{nfc(written)}/{path.partition('/')[0]}/"] += 1
    if nested:
        named = ", ".join(f"{folder} ({count})" for folder, count in list(nested.items())[:_MAX_NESTED])
        more = f" and {len(nested) - _MAX_NESTED} more" if len(nested) > _MAX_NESTED else ""
        notes.append(f"images in folders inside a class folder count for that class: {named}{more}")
    if merged := [name for name, ways in forms.items() if len(ways) > 1]:
        notes.append(f"classes whose folders are written in several Unicode forms, read as one: {quoted(merged)}")
    return tuple(note for note in (*notes, *name_notes(classes.names)) if note)


def _items(root: Folder, classes: Classes, part: _Part, group_by: str | None, *, strict: bool) -> tuple[Item, ...]:
    """The images of a part; those that ``group_by`` does not match are an error, or, not ``strict``, stand alone."""
    images = part.by_class()
    rows = [(label, key) for label, name in enumerate(classes.names) for key in sorted(images[name])]
    if group_by is None:
        return tuple(Item(key=key, label=label, group=key) for label, key in rows)
    groups = find_groups(group_by, [part.path(key) for _, key in rows])
    unmatched = [key for (_, key), group in zip(rows, groups, strict=True) if group is None]
    if unmatched and strict:
        raise DataError(
            f"{root}: data.split.group_by {group_by!r} must match every image, "
            f"it does not match {len(unmatched)}: {quoted(unmatched)}"
        )
    return tuple(
        Item(key=key, label=label, group=key if group is None else group)
        for (label, key), group in zip(rows, groups, strict=True)
    )


LIMIT_S = 20.0
_PATHS_PER_S = 20_000  # slower than any expression without such a search, on a slow machine
_SCRIPT = """
import json, re, sys
pattern, paths = json.load(sys.stdin)
pattern = re.compile(pattern)
found = [pattern.search(path) for path in paths]
print(json.dumps([m and ((m.group(1) if pattern.groups else None) or m.group()) for m in found]))
"""


def find_groups(group_by: str, paths: Sequence[str]) -> list[str | None]:
    """The first group of the expression in each path, or all that it matches; None where it does not match.

    Raises:
        DataError: It is not a regular expression, or it takes too long.
    """
    limit_s = LIMIT_S + len(paths) / _PATHS_PER_S
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _SCRIPT],
            input=json.dumps([group_by, list(paths)]),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"data.split.group_by {group_by!r} takes more than {limit_s:.0f} s on {len(paths):,} paths: repeats inside "
            "of repeats, as in (a+)+, try exponentially many ways; write it without them"
        ) from None
    if done.returncode:
        reason = last_line(done.stderr, "its process was killed")
        raise DataError(f"data.split.group_by must be a regular expression: {group_by!r}: {reason}")
    found: list[str | None] = json.loads(done.stdout)
    return found
