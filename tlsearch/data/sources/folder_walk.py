"""Walks a folder of images by names alone: no file is opened. What does not count is kept, by reason.

An image is a file with a suffix of IMAGE_SUFFIXES, in either case. Links are followed, each folder once on its way
down. Hidden names and those of file managers and NAS systems do not count at all.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tlsearch.core.errors import DataError
from tlsearch.data.fetch.bucket_images import RemoteEntry, RemoteFolder
from tlsearch.data.image_files import quoted
from tlsearch.data.images.file_formats import named_as_image
from tlsearch.data.sources.left_out import (
    BROKEN,
    HIDDEN,
    JUNK,
    LOOP,
    SPECIAL,
    STRAY,
    LeftOut,
    LeftOutFiles,
    reason_by_suffix,
    skipped_by_name,
)

MAX_DEPTH = 100  # folders inside of folders
MAX_LINKED = 10_000  # folders that are reached through links; links to each other multiply
Folder = Path | RemoteFolder
Entry = os.DirEntry[str] | RemoteEntry


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """The images below a folder, found as those of a class folder are.

    Attributes:
        images: POSIX paths relative to the folder, sorted.
        left_out: How many other files there are, by suffix in lower case; hidden ones and those of file managers do not
            count.
        unlisted: Why folders inside it could not be listed.
    """

    images: tuple[str, ...]
    left_out: Mapping[str, int]
    unlisted: tuple[str, ...]


def images_below(folder: Path) -> FolderImages:
    """Lists the images of a folder at any depth, by the rules of training folders; opens none."""
    unlisted: list[str] = []
    walk = FolderWalk(folder, unlisted)
    images = tuple(walk.images(""))
    others = (key for left in walk.left_out() if left.reason not in (HIDDEN, JUNK, LOOP) for key in left.keys)
    left_out = Counter(os.path.splitext(key)[1].lower() for key in others)
    return FolderImages(images=images, left_out=left_out, unlisted=tuple(unlisted))


def refuse_circles(folder: Path) -> None:
    """Looks at a folder before a library walks it, which follows links between folders again and again.

    Raises:
        DataError: Links lead round in circles, or a folder cannot be listed.
    """
    walk = FolderWalk(folder)
    walk.images("")
    if circles := [key for left in walk.left_out() if left.reason == LOOP for key in left.keys]:
        raise DataError(f"{folder}: links between folders that lead round in circles: {quoted(circles)}; remove them")


class FolderWalk:
    """One look at a data folder; keys are POSIX paths relative to its root, "" is the root itself.

    Args:
        root: The folder.
        unlisted: Takes what is wrong with folders that cannot be listed; None: that is an error.
    """

    def __init__(self, root: Folder, unlisted: list[str] | None = None) -> None:
        self.root = root
        self._unlisted = unlisted
        self._left = LeftOutFiles()
        self._num_linked = 0

    def place(self, key: str) -> Folder:
        """The folder of a key."""
        return self.root / key if key else self.root

    def folders(self, key: str) -> list[str]:
        """Names of the folders directly in one, sorted.

        Raises:
            DataError: It cannot be listed.
        """
        return sorted(entry.name for entry in self._scan(key) if _is_dir(entry))

    def broken_links(self, key: str) -> list[str]:
        """Names of links directly in a folder that lead nowhere and are not called like files."""
        return sorted(one.name for one in self._scan(key) if _dangles(one) and not os.path.splitext(one.name)[1])

    def images(self, key: str) -> list[str]:
        """Keys of all images in a folder and below, sorted; the other files are noted."""
        return sorted(self._walk(key, os.path.realpath(self.place(key)), ()))

    def note_strays(self, key: str, known: Container[str] = (), reason: str = STRAY) -> None:
        """Notes the files directly in a folder that are not ``known``, its images for that reason."""
        for entry in self._scan(key):
            if not _is_dir(entry) and (inside := _join(key, entry.name)) not in known:
                self._note(entry, inside, reason)

    def leave_out(self, reason: str, keys: list[str]) -> None:
        """Notes images that another rule leaves out."""
        for key in keys:
            self._left.add(reason, key)

    def left_out(self) -> tuple[LeftOut, ...]:
        """All that was noted so far."""
        return self._left.result()

    def _walk(self, key: str, real: str, above: tuple[str, ...]) -> Iterator[str]:
        """Images below a folder, whose path without links is ``real``; ``above`` are those of the folders above it."""
        if real in above:
            self._left.add(LOOP, f"{key}/")
            return
        if len(above) >= MAX_DEPTH or self._num_linked > MAX_LINKED:
            many = f"more than {MAX_LINKED:,} folders are reached through links, which may lead round in circles"
            what = f"folders are nested more than {MAX_DEPTH} deep" if len(above) >= MAX_DEPTH else many
            raise DataError(f"{self.root}: {what}: {key}/; remove some of them")
        for entry in self._scan(key):
            inside = _join(key, entry.name)
            if _is_dir(entry):
                child = os.path.join(real, entry.name)
                if entry.is_symlink():
                    child = os.path.realpath(child)
                    self._num_linked += 1
                yield from self._walk(inside, child, (*above, real))
            elif _is_image(entry):
                yield inside
            else:
                self._note(entry, inside, "")

    def _note(self, entry: Entry, key: str, image_reason: str) -> None:
        if _is_image(entry):
            self._left.add(image_reason, key)
        elif _dangles(entry):
            self._left.add(BROKEN, key)
        else:
            self._left.add(reason_by_suffix(entry.name) if entry.is_file() else SPECIAL, key)

    def _scan(self, key: str) -> list[Entry]:
        """What counts in a folder; the rest is noted."""
        folder = self.place(key)
        entries: list[Entry]
        if isinstance(folder, RemoteFolder):
            entries = list(folder.scan())
        else:
            try:
                with os.scandir(folder) as found:
                    entries = list(found)
            except OSError as error:
                message = f"{folder}: cannot be listed: {error.strerror or error}"
                if self._unlisted is None:
                    raise DataError(message) from error
                self._unlisted.append(message)
                return []
        counted = []
        for entry in entries:
            if reason := skipped_by_name(entry.name):
                self._left.add(reason, _join(key, entry.name) + ("/" if _is_dir(entry) else ""))
            else:
                counted.append(entry)
        return counted


def _join(key: str, name: str) -> str:
    return f"{key}/{name}" if key else name


def _is_dir(entry: Entry) -> bool:
    """False also of a link that cannot be followed, to itself or into a folder that may not be entered."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_image(entry: Entry) -> bool:
    # A link that leads nowhere counts, so that the missing image is reported instead of left out.
    return named_as_image(entry.name) and (_dangles(entry) or entry.is_file())


def _dangles(entry: Entry) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)
