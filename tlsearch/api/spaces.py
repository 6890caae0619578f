"""A space for a script: from a space file, or from the same thing as a dict."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlsearch.config import SpaceFile, bucket_address, dump_part
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
        source: The absolute path it was read from, or a copy of the dict.
        folder: What relative paths of a dict are relative to: the current folder when it was loaded.
        overrides: ``a.b.c=VALUE`` as ``--set`` takes them.
        data: In place of the file's ``data.path``; absolute.
    """

    file: SpaceFile
    space: Space
    source: SpaceSource
    folder: Path = Path()
    overrides: tuple[str, ...] = ()
    data: Path | None = None

    def with_overrides(self, overrides: Mapping[str, Any]) -> LoadedSpace:
        """The same space with other values, by dotted key: ``{"search.trials": 8}``.

        Raises:
            SpaceError: All errors of the space with these values.
        """
        texts = {text.partition("=")[0]: text for text in (*self.overrides, *_as_set(overrides))}
        return _load(self.source, self.folder, tuple(texts.values()), self.data)

    def written(self) -> AbstractContextManager[Path]:
        """A file that holds the space while the body runs: its own, or one for a dict in the folder it was loaded in.

        Relative paths are relative to the folder of the file.

        Raises:
            StorageError: That folder cannot be written.
        """
        return _written(self.source, self.folder)

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
    if isinstance(source, Mapping):
        source = _plain_copy(source, ())
    return _load(source, Path(), _as_set(overrides or {}), None if data is None else Path(data))


def with_changes(space: LoadedSpace | SpaceSource, overrides: Mapping[str, Any]) -> LoadedSpace:
    """A space that is loaded or is to be, with other values by dotted key.

    Raises:
        SpaceError: All errors of the space with these values; without them it may have more.
    """
    if not isinstance(space, LoadedSpace):
        return load_space(space, overrides=overrides)
    return space.with_overrides(overrides) if overrides else space


def _load(source: SpaceSource, folder: Path, overrides: tuple[str, ...], data: Path | None) -> LoadedSpace:
    with _written(source, folder) as path:
        file, space = load(path, overrides=overrides, data_path=data)
    # the space stays the same when the current folder changes
    if isinstance(source, Mapping):
        folder = path.parent
    else:
        source = path.expanduser().absolute()
    if data is not None and not bucket_address(data):
        data = data.absolute()
    return LoadedSpace(file=file, space=space, source=source, folder=folder, overrides=overrides, data=data)


def _as_set(overrides: Mapping[str, Any]) -> tuple[str, ...]:
    plain = {key: _plain_copy(value, (str(key),)) for key, value in overrides.items()}
    # escapes of JSON halve what is beyond 16 bits, and YAML leaves it so
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in plain.items())


@contextmanager
def _written(source: SpaceSource, folder: Path) -> Iterator[Path]:
    if not isinstance(source, Mapping):
        yield Path(source)
        return
    try:
        number, name = tempfile.mkstemp(prefix=".space-", suffix=".yaml", dir=folder)
    except OSError as error:
        raise StorageError(f"a space given as a dict needs a current folder that can be written: {error}") from error
    try:
        with open(number, "w", encoding="utf-8") as file:
            file.write(dump_part(source))
        yield Path(name)
    except SpaceError as error:  # the user has not seen this file: keys say enough
        raise SpaceError([replace(one, file="", line=0, column=0) for one in error.faults]) from None
    finally:
        Path(name).unlink(missing_ok=True)


def _plain_copy(value: Any, path: tuple[str, ...]) -> Any:
    """A copy of text, numbers, lists and dicts; a value that is none of these is an error of the space."""
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise SpaceError([SpaceProblem(path=path, message=str(error))]) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy, pandas and torch
        return value.tolist()
    raise TypeError(f"a space holds text, numbers, lists and dicts, not {type(value).__name__}: {value!r}")
