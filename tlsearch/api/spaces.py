"""A space for a script: from a space file, or from the same thing as a dict."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlsearch.config import SpaceFile, dump_part
from tlsearch.core.errors import SpaceError, SpaceProblem, StorageError
from tlsearch.core.text import html_table, plural
from tlsearch.space import Dimension, Space, load

SpaceSource = str | Path | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LoadedSpace:
    """A space file that has no errors.

    Attributes:
        file: Its settings, defaults filled in.
        space: Its dimensions.
        source: The path it was read from, or the dict.
        overrides: ``a.b.c=VALUE`` as ``--set`` takes them.
        data: In place of the file's ``data.path``.
    """

    file: SpaceFile
    space: Space
    source: SpaceSource
    overrides: tuple[str, ...] = ()
    data: Path | None = None

    def with_overrides(self, overrides: Mapping[str, Any]) -> LoadedSpace:
        """The same space with other values, by dotted key: ``{"search.trials": 8}``.

        Raises:
            SpaceError: All errors of the space with these values.
        """
        return load_space(self.source, overrides=_merged(self.overrides, overrides), data=self.data)

    @contextmanager
    def written(self) -> Iterator[Path]:
        """A file that holds the space while the body runs: its own, or one for a dict in the current folder.

        Relative paths are relative to the folder of the file.

        Raises:
            StorageError: The current folder cannot be written.
        """
        with _written(self.source) as path:
            yield path

    def _given(self) -> list[Dimension]:
        """The dimensions that the source mentions; the others have their defaults."""
        return [one for one in self.space.dimensions.values() if not one.left_out]

    def __repr__(self) -> str:
        names = [one.name for one in self._given()]
        return f"LoadedSpace({self.file.name!r}: {plural(len(names), 'dimension')}: {', '.join(names)})"

    def _repr_html_(self) -> str:
        rows = [(one.name, str(one.domain)) for one in self._given()]
        return html_table(("dimension", "values"), rows, caption=f"space {self.file.name}")


def load_space(
    source: SpaceSource, *, overrides: Mapping[str, Any] | None = None, data: str | Path | None = None
) -> LoadedSpace:
    """Reads and checks a space; opens no image and imports no torch.

    Args:
        source: The path of a space file, or its content as a dict. Relative paths in a dict are relative to the
            current folder.
        overrides: Values in place of the source's, by dotted key: ``{"search.trials": 8}``.
        data: Folder of images, or manifest, in place of ``data.path``.

    Raises:
        SpaceError: All errors, with file, line and column where there is a file.
    """
    texts = tuple(f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items())
    folder = None if data is None else Path(data)
    with _written(source) as path:
        file, space = load(path, overrides=texts, data_path=folder)
    return LoadedSpace(file=file, space=space, source=source, overrides=texts, data=folder)


def _merged(before: tuple[str, ...], more: Mapping[str, Any]) -> dict[str, Any]:
    earlier = {key: json.loads(value) for key, _, value in (text.partition("=") for text in before)}
    return {**earlier, **more}


@contextmanager
def _written(source: SpaceSource) -> Iterator[Path]:
    if not isinstance(source, Mapping):
        yield Path(source)
        return
    try:
        number, name = tempfile.mkstemp(prefix=".space-", suffix=".yaml", dir=os.getcwd())
    except OSError as error:
        raise StorageError(f"a space given as a dict needs a current folder that can be written: {error}") from error
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(_yaml(source))
        yield Path(name)
    except SpaceError as error:  # the user has not seen this file: keys say enough
        raise SpaceError([replace(one, file="", line=0, column=0) for one in error.faults]) from None
    finally:
        Path(name).unlink(missing_ok=True)


def _yaml(tree: Mapping[str, Any]) -> str:
    """The dict as YAML; values that are not plain data are an error of the space."""
    try:
        return dump_part(json.loads(json.dumps(tree, default=_plain)))
    except (TypeError, ValueError) as error:
        raise SpaceError([SpaceProblem(path=(), message=str(error))]) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a space holds text, numbers, lists and dicts, not {type(value).__name__}: {value!r}")
