"""Space files read on their own: without the room that checks their dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlsearch.config import SpaceFile, parse_space_file
from tlsearch.core.errors import SpaceError


def load_space_file(path: Path, overrides: Sequence[str] = (), data_path: Path | None = None) -> SpaceFile:
    """As ``parse_space_file``; the room ``space`` checks the dimensions.

    Raises:
        SpaceError: All errors, with file, line and column.
    """
    file, problems = parse_space_file(path, overrides, data_path)
    if problems or file is None:
        raise SpaceError(problems)
    return file
