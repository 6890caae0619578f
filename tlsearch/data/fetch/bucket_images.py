"""Images in a bucket (``s3://``): listed at once, fetched one by one into this node's cache when they are read.

Endpoint, region and credentials come from the environment, as pyarrow finds them; an address never holds any. What
stands in the cache is whole: it is written beside, compared in length, renamed, and given the object's time, so
that an image that has changed in the bucket is fetched again and one that has not is not. A reader that was ended goes
on with the files that are there. The test split is listed like the others, and fetched when somebody reads it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from tlsearch.core.errors import DataError
from tlsearch.core.files import IMAGE_BYTES
from tlsearch.core.text import first_line
from tlsearch.core.types import CacheSpec
from tlsearch.data.image_files import file_digests, raise_together
from tlsearch.node_cache.locked_files import cache_directory, keep, temporary_file, writing

logger = logging.getLogger(__name__)

_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
_FETCHERS = 16  # waiting for the network, not computing


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One object: bytes, and the time of its last change in nanoseconds."""

    size: int
    changed_ns: int


@lru_cache(maxsize=8)
def remote_system(uri: str) -> tuple[Any, str]:
    """pyarrow's file system of an address, and the path in it without a slash at its end.

    Raises:
        OSError: pyarrow does not know such addresses, or cannot reach this one.
    """
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
    except ValueError as error:  # pyarrow's word for a scheme that it does not know
        raise OSError(str(error)) from error
    return system, str(path).rstrip("/")


def remote_problem(uri: str) -> str:
    """Why an address cannot be read from this machine; empty where it can."""
    from pyarrow import fs

    try:
        system, path = remote_system(uri)
        found = system.get_file_info(path)
    except OSError as error:
        return f"{uri} cannot be read: {first_line(error)}"
    return f"{uri} does not exist" if found.type == fs.FileType.NotFound else ""


@dataclass(frozen=True, kw_only=True)
class RemoteFolder:
    """A folder of a bucket, with as much of a Path as listing needs; an object store has folders by name only."""

    uri: str
    files: Mapping[str, RemoteFile] = field(repr=False)  # all below the root, by path relative to it
    folders: frozenset[str] = field(repr=False)
    inside: str = ""

    @classmethod
    def open(cls, uri: str) -> RemoteFolder:
        """Lists everything below an address.

        Raises:
            DataError: It cannot be listed.
        """
        from pyarrow import fs

        uri = uri.rstrip("/")
        try:
            system, root = remote_system(uri)
            found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        except OSError as error:
            raise DataError(f"{uri}: cannot be listed: {first_line(error)}") from error
        files: dict[str, RemoteFile] = {}
        folders: set[str] = set()
        for one in found:
            key = str(one.path).removeprefix(root).lstrip("/")
            if ".." in PurePosixPath(key).parts:
                raise DataError(f"{uri}: has an object whose name leads out of its folder: {key!r}")
            folders.update(str(parent) for parent in PurePosixPath(key).parents if str(parent) != ".")
            if one.type == fs.FileType.File:
                files[key] = RemoteFile(size=int(one.size), changed_ns=int(one.mtime_ns or 0))
            elif one.type == fs.FileType.Directory:
                folders.add(key)
        return cls(uri=uri, files=files, folders=frozenset(folders))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.inside).name

    def __truediv__(self, name: str) -> RemoteFolder:
        inside = "/".join(part for part in (self.inside, name) if part)
        return RemoteFolder(uri=self.uri, files=self.files, folders=self.folders, inside=inside)

    def __str__(self) -> str:
        return f"{self.uri}/{self.inside}" if self.inside else self.uri

    def __fspath__(self) -> str:
        return str(self)

    def exists(self) -> bool:
        """Whether it is an object or holds some."""
        return self.is_dir() or self.inside in self.files

    def is_dir(self) -> bool:
        """Whether it holds objects."""
        return self.inside in self.folders if self.inside else bool(self.files or self.folders)

    def scan(self) -> list[RemoteEntry]:
        """What is directly in it."""
        prefix = f"{self.inside}/" if self.inside else ""
        names = {}
        for keys, folder in ((self.files, False), (self.folders, True)):
            for key in keys:
                name = key.removeprefix(prefix)
                if key.startswith(prefix) and name and "/" not in name:
                    names[name] = RemoteEntry(name=name, path=f"{self}/{name}", folder=folder)
        return list(names.values())

    def reader(self) -> RemoteReader:
        """Reads its objects by their path relative to the root."""
        return RemoteReader(uri=self.uri, files=self.files)


@dataclass(frozen=True, kw_only=True)
class RemoteEntry:
    """As os.DirEntry, as far as listing needs it."""

    name: str
    path: str
    folder: bool

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return self.folder

    def is_file(self) -> bool:
        """Whether it is an object."""
        return not self.folder

    def is_symlink(self) -> bool:
        """Object stores have no links."""
        return False


@dataclass(frozen=True, kw_only=True)
class RemoteReader:
    """A Reader of objects, through this node's copies of them."""

    uri: str
    files: Mapping[str, RemoteFile] = field(repr=False)

    @property
    def root(self) -> Path:
        """Where this node keeps its copies."""
        return cache_directory(CacheSpec()) / "data" / hashlib.sha256(self.uri.encode()).hexdigest()[:16]

    def read(self, key: str) -> bytes:
        """The object's content."""
        try:
            return self.fetch(key).read_bytes()
        except OSError as error:
            raise DataError(f"{self.name(key)}: cannot be read: {first_line(error)}") from error

    def head(self, key: str, num_bytes: int) -> bytes:
        """How the object begins; nothing is kept of it.

        Raises:
            OSError: It cannot be read.
        """
        system, root = remote_system(self.uri)
        with system.open_input_file(f"{root}/{key}") as source:
            return bytes(source.read(num_bytes))

    def name(self, key: str) -> str:
        """Its address."""
        return f"{self.uri}/{key}"

    def digests(self, keys: Sequence[str]) -> tuple[bytes, ...]:
        """Of each object's copy; those that are not here yet are fetched, by one process of the node at a time."""
        root = self.root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep(root)
        with writing(root), ThreadPoolExecutor(max_workers=_FETCHERS) as pool:
            failures = [text for text in pool.map(self._try_fetch, keys) if text]
        raise_together(failures, len(keys))
        return file_digests(str(root), keys)

    def fetch(self, key: str) -> Path:
        """This node's copy, fetched where it is missing or the object has changed.

        Raises:
            OSError: It cannot be had, or the disk.
        """
        root = self.root
        path, known = root / key, self.files.get(key)
        if known is None:
            raise FileNotFoundError(f"{self.name(key)} was not there when the data set was listed")
        with suppress(FileNotFoundError):
            here = path.stat()
            if here.st_size == known.size and here.st_mtime_ns == known.changed_ns:
                return path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._download(key, path, known)
                break
            except (FileNotFoundError, PermissionError):
                raise
            except OSError as error:
                if attempt == _ATTEMPTS:
                    raise
                logger.warning("%s: %s; trying again", self.name(key), first_line(error))
                time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
        return path

    def _download(self, key: str, path: Path, known: RemoteFile) -> None:
        system, root = remote_system(self.uri)
        if known.size > IMAGE_BYTES:
            raise PermissionError(f"it has {known.size:,} bytes, more than the {IMAGE_BYTES:,} that are read")
        with temporary_file(path) as temporary:
            with system.open_input_stream(f"{root}/{key}") as source:
                data = source.read(known.size + 1)
            if len(data) != known.size:
                raise OSError(f"{len(data)} bytes came, {known.size} were listed; it has changed, or was cut off")
            temporary.write_bytes(data)
            os.utime(temporary, ns=(known.changed_ns, known.changed_ns))
            os.replace(temporary, path)

    def _try_fetch(self, key: str) -> str:
        """What went wrong; empty where nothing did."""
        try:
            self.fetch(key)
        except OSError as error:
            return f"{self.name(key)}: cannot be read: {first_line(error)}"
        return ""
