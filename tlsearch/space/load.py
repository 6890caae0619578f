"""The one way in: a space file to its SpaceFile and Space, or to all its errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tlsearch.config import DefaultsSpec, SpaceFile, parse_space_file
from tlsearch.core.errors import SpaceError
from tlsearch.space.parse_space import build_space
from tlsearch.space.space import EARLIER_DEFAULTS, Space


def load(
    path: Path,
    overrides: Sequence[str] = (),
    data_path: Path | None = None,
    moved: Callable[[str], str] | None = None,
    current: Path | None = None,
    *,
    stored: bool = False,
    defaults: DefaultsSpec | None = None,
) -> tuple[SpaceFile, Space]:
    """Reads and checks a whole space file; opens no image and imports no torch.

    Args:
        path: The file.
        overrides: ``a.b.c=VALUE``, VALUE as YAML.
        data_path: Instead of the file's ``data.path``; relative to the current folder.
        moved: Gives the file's absolute paths as they are now.
        current: The folder that was the current one when the overrides were given; None is the current one.
        stored: The file is a search's own, perhaps of an earlier version: settings without effect are not errors, and
            keys that were taken out since are passed over.
        defaults: Those that the file does not name itself.

    Raises:
        SpaceError: All errors of structure and meaning, with file, line and column.
    """
    file, problems = parse_space_file(path, overrides, data_path, moved, current, stored=stored)
    if file is None:
        raise SpaceError(problems)
    if defaults is not None:
        file = replace(file, defaults=file.defaults.completed(defaults))
    space, more = build_space(file, stored=stored)
    if problems or more:
        raise SpaceError([*problems, *more])
    return file, space


def load_resolved(path: Path, moved: Callable[[str], str] | None = None) -> tuple[SpaceFile, Space]:
    """As ``load``, of the file that a search keeps: with the defaults that the search began with.

    Raises:
        SpaceError: As for ``load``.
    """
    return load(path, moved=moved, stored=True, defaults=DefaultsSpec(**EARLIER_DEFAULTS))  # type: ignore[arg-type]
