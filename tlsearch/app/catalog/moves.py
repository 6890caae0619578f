"""A search whose folder has moved: absolute paths written before the move, as they are now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from tlsearch.config import in_address
from tlsearch.config.document.wording import split_sqlite


@dataclass(frozen=True, kw_only=True)
class Move:
    """From where to where a search's folder has moved; both absolute."""

    before: Path
    now: Path

    def place(self, text: str) -> str:
        """A path or ``sqlite:///FILE`` that was written before the move, as it is now; any other text as it is.

        What lay in the storage is where the storage is now, if it is there. What lay outside stays where it was while
        it exists; else it is looked for in the same place beside the storage: a whole project has moved.
        """
        parts = split_sqlite(text)
        if parts is not None and os.path.isabs(parts[1]):
            return f"{parts[0]}{in_address(self._path(Path(unquote(parts[1]))))}{parts[2]}"
        return str(self._path(Path(text))) if os.path.isabs(text) else text

    def _path(self, path: Path) -> Path:
        inside = _rebased(path, self.before.parent, self.now.parent)
        if inside is not None and inside.exists():
            return inside
        if path.exists():
            return path
        along = _rebased(path, *self._roots())
        if along is None or along.exists():
            return along or path
        return path if self.before.exists() else along  # not made yet

    def _roots(self) -> tuple[Path, Path]:
        """The folders above what has the same names before and now."""
        before, now = self.before, self.now
        while before.name == now.name and before.name:
            before, now = before.parent, now.parent
        return before, now


def _rebased(path: Path, before: Path, now: Path) -> Path | None:
    return now / path.relative_to(before) if path.is_relative_to(before) else None
