"""Images that have moved: the same ones in another place, which the space file names now, or ``--data``.

A search reads its images where its ``resolved.yaml`` says. Only that path is replaced, and only after the images in the
new place have been found to be the search's own by their digests; so all commands find them there from then on.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry, register, repetitions
from tlsearch.app.catalog.gather_facts import read_space_file
from tlsearch.app.catalog.space_diff import file_now
from tlsearch.app.catalog.stored import settle, stored_file
from tlsearch.app.searches.input_digests import refuse_changed_images
from tlsearch.config import SpaceFile, bucket_address, dump_resolved
from tlsearch.core.errors import DataError, SpaceError
from tlsearch.core.files import write_atomically
from tlsearch.data import load_index
from tlsearch.search import holding

logger = logging.getLogger(__name__)


def follow_data(entry: SearchEntry, *, data_path: Path | None = None) -> SearchEntry:
    """Has a search, and what ``confirm`` made of it, read its images where they are now; the caller holds its lock.

    Nothing is written where they have not moved. Other changes of the space file are none of its business.

    Args:
        entry: The search.
        data_path: The place, as it is given on the command line; it counts before that of the space file.

    Returns:
        The search, which remembers ``data_path`` as given.

    Raises:
        DataError: The images there are others, or cannot be listed. Where those that the search began with are still
            in their place and ``data_path`` is not given, the change of the file is left to ``refuse_changes``.
    """
    stored = read_space_file(entry)
    if stored is None or stored.data.path is None:
        return entry
    if data_path is not None:
        entry = replace(entry, data_path=bucket_address(data_path) or str(data_path.absolute()))
    place = entry.data_path if data_path is not None else _named_place(entry, stored)
    if place != stored.data.path:
        try:
            index = load_index(replace(stored.data, path=place))
            refuse_changed_images(entry, index, purpose=f"the search cannot go on with those in {place}")
        except DataError:
            if data_path is None and os.path.exists(stored.data.path):
                return entry
            raise
        _take_place(entry, place)
        logger.warning(
            "%s goes on with the same images in %s; they were in %s", entry.search_id, place, stored.data.path
        )
    elif data_path is None:
        return entry
    entry = settle(entry)
    if data_path is not None:
        register(entry)
    return entry


def _named_place(entry: SearchEntry, stored: SpaceFile) -> str:
    """Where the user's space file says that the images are; a search of another search has no such file."""
    assert stored.data.path is not None, "images that are files have a place"
    if entry.parent or not Path(entry.source).is_file():
        return stored.data.path
    try:
        now = file_now(entry, stored)[0].data
    except SpaceError:
        return stored.data.path  # each command says itself what is wrong with the file
    return stored.data.path if now.path is None or now.source != stored.data.source else now.path


def _take_place(entry: SearchEntry, place: str) -> None:
    """Writes it into the search's own file, and into those of its repetitions, which began with the same images."""
    for repetition in repetitions(entry):
        with holding(repetition.path, "resume"), suppress(SpaceError):  # one of another version stays as it is
            _write_place(repetition, place)
    _write_place(entry, place)


def _write_place(entry: SearchEntry, place: str) -> None:
    file, _ = stored_file(entry, "so it cannot go on with images in another place", data_path=Path(place))
    write_atomically(entry.path / RESOLVED, dump_resolved(file))
