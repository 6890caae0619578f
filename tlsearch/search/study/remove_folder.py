"""Removes a search's folder with its study; a death on the way leaves a whole search or none."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.search.study.lock import holding
from tlsearch.search.study.rdb import connect, database_errors, read_pointer

_REMOVED = ".removed-"  # a search under such a name is none any more


def remove_folder(folder: Path, mark: str) -> None:
    """Removes the folder, and the study where it is in a database.

    Args:
        mark: Tells this removal from others of folders of the same name.

    Raises:
        StorageError: The search runs, or something cannot be removed.
    """
    finish_removals(folder.parent)
    aside = folder.with_name(f"{_REMOVED}{mark[:16]}")
    with holding(folder, "remove"):
        try:
            folder.rename(aside)
        except OSError as error:
            raise StorageError(f"{folder} cannot be removed: {error.strerror or error}") from error
        crash_point("search_set_aside")
        _remove(aside)


def finish_removals(storage: Path) -> None:
    """Removes what a death has left of searches that were being removed."""
    for folder in storage.glob(f"{_REMOVED}*"):
        with suppress(StorageError), holding(folder, "remove"):
            _remove(folder)


def _remove(aside: Path) -> None:
    pointer = read_pointer(SearchFolder(root=aside).pointer)
    if pointer is not None:
        storage = connect(pointer.url, writable=True)
        with database_errors(pointer.url), suppress(KeyError):
            storage.delete_study(storage.get_study_id_from_name(pointer.name))
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise StorageError(f"{aside} cannot be removed whole: {error.strerror or error}") from error
