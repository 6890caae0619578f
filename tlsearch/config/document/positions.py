"""A parsed space file with the place of every key and value, and a collector of its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlsearch.core.errors import Kind, SpaceProblem

Keys = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Document:
    """The tree of a space file, overrides applied, and where each part of it stands.

    Attributes:
        path: The file, as it was named.
        tree: Plain mappings, lists and scalars.
        keys: Position of each key, by its path.
        values: Position of each value, by its path.
        origins: Paths given by an override, with its text, e.g. ``--set search.trials=3``.
        doubts: Paths whose value was wrong and replaced by a default: rules that read them cannot
            be judged.
        current: The folder that relative paths of overrides are relative to; None is the current one.
    """

    path: Path
    tree: dict[str, Any] = field(default_factory=dict)
    keys: Mapping[Keys, Position] = field(default_factory=dict)
    values: Mapping[Keys, Position] = field(default_factory=dict)
    origins: Mapping[Keys, str] = field(default_factory=dict)
    doubts: frozenset[Keys] = frozenset()
    current: Path | None = None

    def problem(self, path: Keys, message: str, *, at_key: bool = False, kind: Kind = "rule") -> SpaceProblem:
        """An error with the place of the value at ``path``, or of its nearest parent.

        A value that an override gave has no place in the file; the message names the override.
        """
        origin = self.origin(path)
        if origin:
            return SpaceProblem(path=path, message=f"{message} (given by {origin})", kind=kind)
        position = self._position(path, at_key=at_key)
        line, column = position.line, position.column
        return SpaceProblem(path=path, message=message, file=str(self.path), line=line, column=column, kind=kind)

    def origin(self, path: Keys) -> str:
        """The override that gave the value at ``path``; empty where the file did."""
        for size in range(len(path), 0, -1):
            if path[:size] in self.origins:
                return self.origins[path[:size]]
        return ""

    def place(self, *paths: Keys) -> str:
        """The places of values that the error of another value names: `` (line 7; lines 9-12)``.

        Values that nobody gave are passed over; the text is empty where none is left.
        """
        places = [self._lines(path) for path in dict.fromkeys(paths)]
        named = [place for place in dict.fromkeys(places) if place]
        return f" ({'; '.join(named)})" if named else ""

    def _lines(self, path: Keys) -> str:
        origin = self.origin(path)
        if origin or path not in self.values:
            return origin
        lines = [place.line for inner, place in self.values.items() if inner[: len(path)] == path]
        first, last = min(lines), max(lines)
        return f"line {first}" if first == last else f"lines {first}-{last}"

    def has(self, path: Keys) -> bool:
        """Whether the file or an override gives a value at ``path``."""
        node: Any = self.tree
        for part in path:
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node):
                node = node[part]
            else:
                return False
        return True

    def doubtful(self, path: Keys) -> bool:
        """Whether the value at ``path``, a part of it or its section was wrong."""
        return any(path[: len(one)] == one or one[: len(path)] == path for one in self.doubts)

    def with_doubts(self, doubts: Iterable[Keys]) -> Document:
        """The same document with more doubts."""
        return replace(self, doubts=self.doubts | frozenset(doubts))

    def texts(self, start: Keys = ()) -> dict[Keys, str]:
        """The texts at ``start`` and below it, by their paths."""
        found: dict[Keys, str] = {}
        waiting: list[tuple[Keys, Any]] = [((), self.tree)]
        while waiting:
            path, value = waiting.pop(0)
            depth = min(len(path), len(start))
            if path[:depth] != start[:depth]:
                continue
            if isinstance(value, dict):
                waiting += [((*path, key), inner) for key, inner in value.items()]
            elif isinstance(value, list):
                waiting += [((*path, number), inner) for number, inner in enumerate(value)]
            elif isinstance(value, str) and len(path) >= len(start):
                found[path] = value
        return found

    def as_dict(self) -> dict[str, Any]:
        """The plain tree, overrides applied; a copy."""
        return deepcopy(self.tree)

    def _position(self, path: Keys, *, at_key: bool) -> Position:
        first = self.keys if at_key else self.values
        if path in first:
            return first[path]
        for size in range(len(path), 0, -1):
            found = self.keys.get(path[:size]) or self.values.get(path[:size])
            if found is not None:
                return found
        return Position(line=1, column=1)


class Checker:
    """Collects errors of values that are not doubtful."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.folder = document.path.expanduser().absolute().parent
        self.problems: list[SpaceProblem] = []

    def require(self, ok: bool, path: Keys, message: str, *others: Keys, kind: Kind = "rule") -> bool:
        """Lists an error at ``path`` unless ``ok``; ``others`` are the paths that the rule reads too."""
        if not ok and not any(self.document.doubtful(one) for one in (path, *others)):
            self.problems.append(self.document.problem(path, message, kind=kind))
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
