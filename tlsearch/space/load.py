"""The one way in: a space file to its SpaceFile and Space, or to all its faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tlsearch.config import SpaceFile, parse_space_file
from tlsearch.errors import ConfigError
from tlsearch.space.build import build_space
from tlsearch.space.space import Space


def load(
    path: Path,
    overrides: Sequence[str] = (),
    data_path: Path | None = None,
    moved: Callable[[str], str] | None = None,
    current: Path | None = None,
    *,
    stored: bool = False,
) -> tuple[SpaceFile, Space]:
    """Reads and checks a whole space file; opens no image and imports no torch.

    Args:
        path: The file.
        overrides: ``a.b.c=VALUE``, VALUE as YAML.
        data_path: Instead of the file's ``data.path``; relative to the current folder.
        moved: Gives the file's absolute paths as they are now.
        current: The folder that was the current one when the overrides were given; None is the current one.
        stored: The file is a search's own, perhaps of an earlier version: settings without effect are no errors, and
            keys that were taken out since are passed over.

    Raises:
        ConfigError: All faults of structure and meaning, with file, line and column.
    """
    file, document, faults = parse_space_file(path, overrides, data_path, moved, current, stored=stored)
    if file is None or document is None:
        raise ConfigError(faults)
    space, more = build_space(file, document, stored=stored)
    if faults or more:
        raise ConfigError([*faults, *more])
    return file, space
