"""What has changed in a search's space file since it began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlsearch.app.catalog.catalog import SOURCE, SearchEntry
from tlsearch.app.catalog.moves import Move
from tlsearch.config import SpaceFile, as_tree, show_flow
from tlsearch.core.errors import SpaceError, StorageError
from tlsearch.core.text import command
from tlsearch.space import Space, load


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One value that is not what it was; as text without passwords."""

    path: tuple[str, ...]
    before: Any
    after: Any

    @property
    def dotted(self) -> str:
        """``space.backbone``."""
        return ".".join(self.path)

    def __str__(self) -> str:
        return f"{self.dotted}: {show_flow(self.before)} -> {show_flow(self.after)}"


def differences(before: SpaceFile, after: SpaceFile) -> list[Difference]:
    """Every value that differs between two complete files, in the order of the first."""
    return list(_compare(as_tree(before), as_tree(after), ()))


def file_now(entry: SearchEntry, stored: SpaceFile) -> tuple[SpaceFile, Space]:
    """The user's file as it is now, with what was given on the command line when the search began.

    Args:
        stored: The search's own. Its storage counts, also where the folder has moved since: a search is where it lies.
            The defaults that were fitted when it began stay, too, as do the channels that were found.

    Raises:
        StorageError: The file is gone.
        SpaceError: It has errors.
    """
    if not Path(entry.source).is_file():
        raise StorageError(f"the space file of {entry.search_id} is gone: {entry.source}")
    data_path = Path(entry.data_path) if entry.data_path else None
    current = Path(entry.cwd) if entry.cwd else None
    file, space = load(
        Path(entry.source),
        overrides=entry.overrides,
        data_path=data_path,
        current=current,
        defaults=stored.defaults,
    )
    file = replace(file, data=file.data.completed(stored.data))
    if file.storage in (stored.storage, entry.storage):
        file = _where_it_lies(file, stored, entry)
    return file, space


def _where_it_lies(file: SpaceFile, stored: SpaceFile, entry: SearchEntry) -> SpaceFile:
    """The file with what it names inside its storage taken to where the storage is now."""
    if entry.remote:
        return file
    place = Move(before=Path(file.storage) / entry.search_id, now=entry.path).place
    tracking = replace(file.tracking, uri=place(file.tracking.uri))
    search = replace(file.search, study=place(file.search.study))
    return replace(file, storage=stored.storage, tracking=tracking, search=search)


def refuse_changes(entry: SearchEntry, stored: SpaceFile) -> None:
    """Sees to it that a search goes on as its user's file says.

    A file that is gone has not changed: the search may go on elsewhere. Nor is there one for a search
    that another one has made.

    Raises:
        StorageError: The file has changed; says what.
    """
    if entry.parent or not Path(entry.source).is_file():
        return
    try:
        found = [str(one) for one in differences(stored, file_now(entry, stored)[0])]
    except SpaceError as error:
        if Path(entry.source).read_bytes() == (entry.path / SOURCE).read_bytes():
            return  # what it names has gone, of which the stored file tells
        found = [f"it has errors: {error}"]
    if found:
        raise StorageError(
            f"the space file {entry.source} has changed since the search began:\n  "
            + "\n  ".join(found)
            + f"\n{command('resume', entry.search_id, '--changed')} goes on with the file as it is now, "
            "--stored as it was"
        )


def _compare(before: Any, after: Any, path: tuple[str, ...]) -> Iterator[Difference]:
    if isinstance(before, Mapping) and after is None or isinstance(after, Mapping) and before is None:
        before, after = before or {}, after or {}
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            yield from _compare(before.get(key), after.get(key), (*path, str(key)))
    elif before != after:
        yield Difference(path=path, before=before, after=after)
