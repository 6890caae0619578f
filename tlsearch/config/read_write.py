"""From the path of a space file to a SpaceFile, or to all its errors; and back to a text with absolute paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from tlsearch.config.document.loader import read_document
from tlsearch.config.document.overrides import apply_overrides, with_moved_paths
from tlsearch.config.document.yaml_text import SpaceDumper
from tlsearch.config.rules.between_values import resolve
from tlsearch.config.rules.schema_errors import validate, without_retired
from tlsearch.config.rules.unused_settings import unused_settings
from tlsearch.config.schema import SpaceFile
from tlsearch.config.search_section import SearchSpec
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.secrets import remember
from tlsearch.core.types import WeightsSource


def parse_space_file(
    path: Path,
    overrides: Sequence[str] = (),
    data_path: Path | None = None,
    moved: Callable[[str], str] | None = None,
    current: Path | None = None,
    *,
    stored: bool = False,
) -> tuple[SpaceFile | None, list[SpaceProblem]]:
    """Reads a space file as far as it goes; never raises for an error in it.

    Args:
        path: The file.
        overrides: ``a.b.c=VALUE`` with VALUE as YAML.
        data_path: Instead of the file's ``data.path``; relative to the current folder.
        moved: Gives the file's absolute paths as they are now.
        current: The folder that was the current one when the overrides were given; None is the current one.
        stored: The file is a search's own, perhaps of an earlier version: settings without effect are not errors, and
            keys that were taken out since are passed over.

    Returns:
        The file with defaults in place of wrong values, and the errors. The file is None where the text itself cannot
        be read.
    """
    document, problems = read_document(path)
    if document is None:
        return None, problems
    if moved is not None:
        document = with_moved_paths(document, moved)
    document, more = apply_overrides(replace(document, current=current), overrides, data_path)
    remember(*document.texts().values())
    form, wrong, document = validate(without_retired(document) if stored else document)
    file, crossed = resolve(form, document)
    if not stored:
        crossed += unused_settings(file)
    return file, [*problems, *more, *wrong, *crossed]


def dump_resolved(file: SpaceFile) -> str:
    """YAML text that ``parse_space_file`` reads back to an equal SpaceFile, from any folder."""
    text: str = yaml.dump(as_tree(file), Dumper=SpaceDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def dump_part(tree: Mapping[str, Any]) -> str:
    """A part of a space file as YAML text that reads back to the same values."""
    text: str = yaml.dump(dict(tree), Dumper=SpaceDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def as_tree(file: SpaceFile) -> dict[str, Any]:
    """The plain tree of a space file, every default written out."""
    data, cache = asdict(file.data), asdict(file.cache)
    data |= {key: _auto(data[key]) for key in ("image_size", "channels", "bits")}
    data |= {key: _plain(data[key]) for key in ("mean", "std")}
    del cache["directory"]  # a place of this machine's, which the file does not name
    return {
        "name": file.name,
        "data": data,
        "weights": {key: _weights(one) for key, one in file.weights.items()},
        "space": _plain(file.space),
        "defaults": {key: _auto(value) for key, value in asdict(file.defaults).items()},
        "search": _search(file.search),
        "resources": {key: _auto(value) for key, value in asdict(file.resources).items()},
        "cache": {**cache, "images_gb": _auto(cache["images_gb"]), "features_gb": _auto(cache["features_gb"])},
        "tracking": asdict(file.tracking),
        "storage": file.storage,
    }


def _auto(value: Any) -> Any:
    return "auto" if value is None else value


def _plain(value: Any) -> Any:
    """Nested mappings and tuples as dicts and lists; a fresh copy, so that YAML writes no aliases."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "items"):
        return {key: _plain(one) for key, one in value.items()}
    return value


def _weights(source: WeightsSource) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if source.kind in ("none", "default"):
        tree["path"] = source.kind
    elif source.kind in ("file", "url"):
        tree.update(path=source.path or source.url, match=source.match)
    else:
        tree.update(package=source.package, file=source.file, match=source.match)
    if source.transform is not None:
        tree["transform"] = source.transform
    return tree


def _search(search: SearchSpec) -> dict[str, Any]:
    tree: dict[str, Any] = _plain(asdict(search))
    names = {"time_budget_s": "time_budget", "trial_timeout_s": "trial_timeout"}
    tree = {names.get(key, key): value for key, value in tree.items()}
    tree["scheduler"] = "none" if search.scheduler is None else {"asha": tree["scheduler"]}
    return tree
