"""Which files this process opens, by an audit hook: nothing that Python opens escapes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_watched: list[tuple[str, set[str]]] = []
_hooked: list[bool] = []


@contextmanager
def opens_below(folder: Path) -> Iterator[set[str]]:
    """Within it the set grows by the path, relative to the folder, of every file below it that is opened."""
    if not _hooked:  # a hook cannot be removed
        sys.addaudithook(_hook)
        _hooked.append(True)
    entry = (f"{folder.resolve()}{os.sep}", set[str]())
    _watched.append(entry)
    try:
        yield entry[1]
    finally:
        _watched.remove(entry)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        for folder, found in _watched:
            if path.startswith(folder):
                found.add(path.removeprefix(folder))
