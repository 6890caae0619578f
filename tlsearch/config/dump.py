"""A SpaceFile written back as a space file, complete and with absolute paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from tlsearch.config.document.loader import SpaceDumper
from tlsearch.config.forms import CacheForm, DataForm, SplitForm
from tlsearch.config.rules.schema_errors import file_keys
from tlsearch.config.schema import SearchSpec, SpaceFile
from tlsearch.core.types import WeightsSource


def dump_resolved(file: SpaceFile) -> str:
    """YAML text that ``load_space_file`` reads back to an equal SpaceFile, from any folder."""
    text: str = yaml.dump(as_tree(file), Dumper=SpaceDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def dump_part(tree: Mapping[str, Any]) -> str:
    """A part of a space file as YAML text that reads back to the same values."""
    text: str = yaml.dump(dict(tree), Dumper=SpaceDumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def as_tree(file: SpaceFile) -> dict[str, Any]:
    """The plain tree of a space file, every default written out."""
    data = _known(DataForm, asdict(file.data))
    data["split"] = _known(SplitForm, data["split"])
    data["image_size"] = _auto(data["image_size"])
    cache = _known(CacheForm, asdict(file.cache))
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


def _known(form: type, tree: dict[str, Any]) -> dict[str, Any]:
    """The keys that the file has: the dataclasses of ``tlsearch.core.types`` may hold more."""
    return {key: tree[key] for key in file_keys(form)}


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
