"""Images in folders: train/ val/ (test/) with one folder per class in each, or one folder per class.

Which files count: those with a suffix of IMAGE_SUFFIXES, in either case, at any depth below a class
folder; links are followed. Hidden files and folders (a leading dot) and ``__MACOSX`` do not count.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tlsearch.data.listing import Item, Listing
from tlsearch.data.readers import FileReader
from tlsearch.data.remote import RemoteEntry, RemoteFolder
from tlsearch.errors import DataError
from tlsearch.types import DataSpec

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

Folder = Path | RemoteFolder
Entry = os.DirEntry[str] | RemoteEntry
Files = Mapping[str, list[str]]  # class name -> paths relative to the class folder, sorted


def list_folder(spec: DataSpec) -> Listing:
    """Lists a folder of images; opens none.

    Raises:
        DataError: No such folder, no or one class, an empty class, classes that differ between splits,
            or a ``group_by`` that is no regular expression or does not match every image.
    """
    if not spec.path:
        raise DataError("data.path must name a folder for data.source folder")
    root: Folder = RemoteFolder.open(spec.path) if "://" in spec.path else Path(spec.path).absolute()
    if not root.is_dir():
        raise DataError(f"data.path must be a folder: {spec.path} {'is a file' if root.exists() else 'does not exist'}")
    split_dirs = _split_dirs(root)
    found = {name: _class_files(root / part) for name, part in split_dirs.items()}
    _check_classes(root, split_dirs, found)
    classes = tuple(sorted(next(iter(found.values()))))
    # Groups matter only where something is still to be split.
    pattern = _pattern(spec.split.group_by) if "val" not in found else None
    if pattern is None and spec.split.group_by is not None:
        logger.warning("data.split.group_by has no effect: %s has ready splits", root)
    items = {}
    for name, files in found.items():
        prefix = f"{split_dirs[name]}/" if split_dirs[name] else ""
        items[name] = _items(root, prefix, classes, files, pattern if name in ("all", "train") else None)
    reader = root.reader() if isinstance(root, RemoteFolder) else FileReader(root=str(root))
    return Listing(root=str(reader.root), reader=reader, classes=classes, items=items)


def _split_dirs(root: Folder) -> dict[str, str]:
    """Folder of each ready split, relative to the root; ``{"all": ""}`` where there are none."""
    splits: dict[str, str] = {}
    others = []
    for name in _subfolders(root):
        # A class may be called "train" (vehicles): then it holds images, not folders of classes.
        if name not in SPLIT_NAMES or not _subfolders(root / name):
            others.append(name)
        elif SPLIT_NAMES[name] in splits:
            raise DataError(f"{root}: both {splits[SPLIT_NAMES[name]]}/ and {name}/ are the val split; keep one")
        else:
            splits[SPLIT_NAMES[name]] = name
    if not splits:
        return {"all": ""}
    if "train" not in splits:
        found = ", ".join(f"{name}/" for name in splits.values())
        raise DataError(f"{root}: has {found} but no train/ with a folder per class")
    others = [name for name in others if next(_walk(root / name, "", ()), None)]
    if others and len(splits) == 1:
        raise DataError(
            f"{root}: is train/ a class or a split? Move {_names(others)} away, or the folders inside train/"
        )
    if others:
        logger.warning("%s: left out, since they are no splits: %s", root, _names(others))
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}


def _class_files(folder: Folder) -> Files:
    if stray := sorted(entry.name for entry in _scan(folder) if _is_image(entry)):
        logger.warning("%s: left out, since they are in no class folder: %s", folder, _names(stray))
    return {name: sorted(_walk(folder / name, "", ())) for name in _subfolders(folder)}


def _scan(folder: Folder) -> list[Entry]:
    if isinstance(folder, RemoteFolder):
        return [entry for entry in folder.scan() if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror or error}") from error


def _subfolders(folder: Folder) -> list[str]:
    return sorted(entry.name for entry in _scan(folder) if entry.is_dir())


def _is_image(entry: Entry) -> bool:
    # A dangling link counts, so that the missing image is reported instead of left out.
    return os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and (entry.is_file() or _dangles(entry))


def _dangles(entry: Entry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """The images below a folder, found as those of a class folder are.

    Attributes:
        images: POSIX paths relative to the folder, sorted.
        left_out: How many other files there are, by suffix in lower case.
        unlisted: Why folders inside it could not be listed.
    """

    images: tuple[str, ...]
    left_out: Mapping[str, int]
    unlisted: tuple[str, ...]


def images_below(folder: Path) -> FolderImages:
    """Lists the images of a folder at any depth, by the rules of training folders; opens none."""
    images: list[str] = []
    left_out: Counter[str] = Counter()
    unlisted: list[str] = []
    for path, entry in _files(folder, "", (), unlisted):
        if _is_image(entry):
            images.append(path)
        else:
            left_out[os.path.splitext(entry.name)[1].lower()] += 1
    return FolderImages(images=tuple(sorted(images)), left_out=left_out, unlisted=tuple(unlisted))


def _walk(folder: Folder, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """Images below a folder as POSIX paths relative to where the walk began."""
    return (path for path, entry in _files(folder, prefix, above, None) if _is_image(entry))


def _files(
    folder: Folder, prefix: str, above: tuple[str, ...], unlisted: list[str] | None
) -> Iterator[tuple[str, Entry]]:
    """Files below a folder, each with its POSIX path relative to where the walk began.

    Args:
        unlisted: Takes what is wrong with folders that cannot be listed; None: that is an error.
    """
    real = os.path.realpath(folder)
    if real in above:
        return  # a link back to a folder that we are in
    try:
        entries = _scan(folder)
    except DataError as error:
        if unlisted is None:
            raise
        unlisted.append(str(error))
        return
    for entry in entries:
        if entry.is_dir():
            yield from _files(folder / entry.name, f"{prefix}{entry.name}/", (*above, real), unlisted)
        else:
            yield prefix + entry.name, entry


def _check_classes(root: Folder, split_dirs: Mapping[str, str], found: Mapping[str, Files]) -> None:
    suffixes = " ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    for name, files in found.items():
        place = root / split_dirs[name]
        if not files:
            raise DataError(f"{place}: no class folders; images must stand in one folder per class")
        if empty := sorted(c for c in files if not files[c]):
            raise DataError(
                f"{place}: class folders without an image ({suffixes}): {_names(empty)}; fill or remove them"
            )
        if len(files) == 1:
            only = place / next(iter(files))
            hint = f"; did you mean {only}?" if len(_subfolders(only)) > 1 else ""
            raise DataError(f"{place}: only one class folder, {only.name}/; at least 2 are needed{hint}")
        if bad := [c for c in files if not _is_utf8(c)]:
            raise DataError(f"{place}: class names must be valid UTF-8: {_names(bad)}")
    first = next(iter(found))
    faults = []
    for name, files in found.items():
        if missing := sorted(found[first].keys() - files.keys()):
            faults.append(f"{split_dirs[name]}/ lacks {_names(missing)}")
        if extra := sorted(files.keys() - found[first].keys()):
            faults.append(f"{split_dirs[name]}/ has {_names(extra)} in addition")
    if faults:
        raise DataError(f"{root}: every split must have the classes of {split_dirs[first]}/: {'; '.join(faults)}")


def _names(names: list[str]) -> str:
    text = ", ".join(repr(name) for name in names[:20])
    return f"{text} and {len(names) - 20} more" if len(names) > 20 else text


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pattern(group_by: str | None) -> re.Pattern[str] | None:
    if group_by is None:
        return None
    try:
        return re.compile(group_by)
    except re.error as error:
        raise DataError(f"data.split.group_by must be a regular expression: {group_by!r}: {error}") from error


def _items(
    root: Folder, prefix: str, classes: tuple[str, ...], files: Files, pattern: re.Pattern[str] | None
) -> tuple[Item, ...]:
    items = []
    unmatched = []
    for label, name in enumerate(classes):
        for path in files[name]:
            key = f"{prefix}{name}/{path}"
            group = key
            if pattern is not None:
                match = pattern.search(path)
                if match is None:
                    unmatched.append(key)
                    continue
                group = (match.group(1) if pattern.groups else None) or match.group()
            items.append(Item(key=key, label=label, group=group))
    if pattern is not None and unmatched:
        raise DataError(
            f"{root}: data.split.group_by {pattern.pattern!r} must match every image, "
            f"it does not match {len(unmatched)}: {_names(unmatched)}"
        )
    return tuple(items)
