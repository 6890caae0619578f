"""Collects the faults of a file's values, and tests paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tlsearch.config.document.positions import Document, Keys
from tlsearch.core.errors import Fault


class Checker:
    """Collects faults of values that are not doubtful."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.folder = document.path.expanduser().absolute().parent
        self.faults: list[Fault] = []

    def require(self, ok: bool, path: Keys, message: str, *others: Keys) -> bool:
        """Lists a fault at ``path`` unless ``ok``; ``others`` are the paths that the rule reads too."""
        if not ok and not any(self.document.doubtful(one) for one in (path, *others)):
            self.faults.append(self.document.fault(path, message))
        return ok

    def absolute(self, text: str, given_at: Keys) -> Path:
        """A path, relative to the file's folder, or to the current one where an override gave it."""
        base = (self.document.current or Path.cwd()) if self.document.origin(given_at) else self.folder
        path = Path(text)
        try:
            path = path.expanduser()
        except RuntimeError:  # ~nobody: stays as it is, and is then found missing
            pass
        return Path(_normal(base / path))


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return str(Path(*parts))


def holds(test: Callable[[], bool]) -> bool:
    """A test of a path that counts as failed where the system refuses the path itself (too long)."""
    try:
        return test()
    except (OSError, ValueError):
        return False


def first_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists: what is between can be made."""
    return next((one for one in (path, *path.parents) if holds(one.exists)), path)
