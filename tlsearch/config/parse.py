"""From a path to a SpaceFile, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tlsearch.config.document.loader import read_document
from tlsearch.config.document.overrides import apply_overrides
from tlsearch.config.document.positions import Document
from tlsearch.config.document.relocation import with_moved_paths
from tlsearch.config.rules.between_values import resolve
from tlsearch.config.rules.schema_errors import validate, without_retired
from tlsearch.config.rules.unused_settings import unused_settings
from tlsearch.config.schema import Loaded, SpaceFile
from tlsearch.core.errors import ConfigError, Fault
from tlsearch.core.secrets import remember


def parse_space_file(
    path: Path,
    overrides: Sequence[str] = (),
    data_path: Path | None = None,
    moved: Callable[[str], str] | None = None,
    current: Path | None = None,
    *,
    stored: bool = False,
) -> tuple[SpaceFile | None, Document | None, list[Fault]]:
    """Reads a space file as far as it goes; never raises for what is wrong in it.

    Args:
        path: The file.
        overrides: ``a.b.c=VALUE`` with VALUE as YAML.
        data_path: Instead of the file's ``data.path``; relative to the current folder.
        moved: Gives the file's absolute paths as they are now.
        current: The folder that was the current one when the overrides were given; None is the current one.
        stored: The file is a search's own, perhaps of an earlier version: settings without effect are not errors, and
            keys that were taken out since are passed over.

    Returns:
        The file with defaults in the faulty places, the document that knows these places, and the
        faults. File and document are None where the text itself cannot be read.
    """
    document, faults = read_document(path)
    if document is None:
        return None, None, faults
    if moved is not None:
        document = with_moved_paths(document, moved)
    document, more = apply_overrides(replace(document, current=current), overrides, data_path)
    remember(*document.texts().values())
    form, wrong, document = validate(without_retired(document) if stored else document)
    file, crossed = resolve(form, document)
    if not stored:
        crossed += unused_settings(file, document)
    return file, document, [*faults, *more, *wrong, *crossed]


def load_space_file(path: Path, overrides: Sequence[str] = (), data_path: Path | None = None) -> Loaded:
    """As ``parse_space_file``; what the dimensions mean is checked by the room ``space``.

    Raises:
        ConfigError: All faults, with file, line and column.
    """
    file, document, faults = parse_space_file(path, overrides, data_path)
    if faults or file is None or document is None:
        raise ConfigError(faults)
    return Loaded(file=file, document=document)
