"""``screen.json`` of a search: what the passes over its backbones said, and which of them its space was narrowed to."""

from __future__ import annotations

import json
import logging

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.core.codec import read_shaped, to_plain
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.types import Screen
from tlsearch.space import Space, is_screened, with_backbones

logger = logging.getLogger(__name__)


def read_screen(entry: SearchEntry) -> Screen | None:
    """The screening of a search as far as it has gone; None where there is none.

    Raises:
        StorageError: The file is damaged.
    """
    try:
        return read_shaped(entry.folder.screen, Screen)
    except FileNotFoundError:
        return None


def decided_screen(entry: SearchEntry) -> Screen | None:
    """The screening of a search for its results: None until it is decided, and, with a warning, where it is damaged."""
    try:
        screen = read_screen(entry)
    except StorageError as error:
        logger.warning("the screen of the backbones is left out: %s", error)
        return None
    return screen if screen is not None and screen.decided else None


def write_screen(entry: SearchEntry, screen: Screen) -> None:
    """Keeps it with the search, whole or not at all.

    Raises:
        StorageError: The folder cannot be written; what was kept before is still there.
    """
    path = entry.folder.screen
    try:
        write_atomically(path, json.dumps(to_plain(screen), indent=1))
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror}; make room, or make the disk writable, then go on with "
            "`tlsearch resume`"
        ) from error


def forget_screen(entry: SearchEntry) -> None:
    """Takes it away where the search's space is not screened any more."""
    entry.folder.screen.unlink(missing_ok=True)


def narrowed(entry: SearchEntry, space: Space) -> Space:
    """A search's space as its screen has left it: the study was begun over these backbones.

    Without a decision, and where nothing is to be screened, it is the space itself.

    Raises:
        StorageError: The file is damaged.
    """
    screen = read_screen(entry) if is_screened(space) else None
    return with_backbones(space, screen.kept) if screen is not None and screen.decided else space
