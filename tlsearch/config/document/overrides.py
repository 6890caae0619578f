"""Changes to a document: ``--set KEY=VALUE``, ``--data PATH``, and absolute paths of places that have moved."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlsearch.config.document.loader import parse_value
from tlsearch.config.document.positions import Document, Keys
from tlsearch.config.document.wording import bucket_address, show
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.text import plural

# Where a space file names a place, but for `storage`: a search's folder tells that itself.
_PLACES = (("data", "path"), ("tracking", "uri"), ("search", "study"))
_INDEX = re.compile(r"\[(\d+)\]")


def apply_overrides(
    document: Document, overrides: Sequence[str], data_path: Path | None
) -> tuple[Document, list[SpaceProblem]]:
    """Puts overrides over the file's values, in order; a later one wins.

    Relative paths given here are relative to the current folder, since they are typed there.

    Args:
        document: The file's document, which stays as it is.
        overrides: ``a.b.c=VALUE``; VALUE is YAML, an index (``a.0.b`` or ``a[0].b``) goes into a list.
        data_path: Takes the place of ``data.path``.
    """
    tree = document.as_dict()
    origins = dict(document.origins)
    problems: list[SpaceProblem] = []
    for text in overrides:
        problem = _apply(tree, text, origins)
        if problem:
            problems.append(SpaceProblem(path=(), message=f"--set {text}: {problem}"))
    if data_path is not None:
        if tree.get("data") is None:
            tree["data"] = {}
        section = tree["data"]
        if isinstance(section, dict):  # else it is an error of its own
            section["path"] = bucket_address(data_path) or str(data_path.absolute())
            origins["data", "path"] = f"--data {data_path}"
    # what stands below an overridden value has no place in the file any more
    keys = {path: place for path, place in document.keys.items() if not _under(path, origins)}
    values = {path: place for path, place in document.values.items() if not _under(path, origins)}
    doubts = frozenset(path for path in document.doubts if not _under(path, origins))
    changed = replace(document, tree=tree, keys=keys, values=values, origins=origins, doubts=doubts)
    return changed, problems


def _under(path: Keys, origins: dict[Keys, str]) -> bool:
    return any(path[: len(one)] == one for one in origins)


def _apply(tree: dict[str, Any], text: str, origins: dict[Keys, str]) -> str:
    """Applies one override in place; returns the error, or an empty text."""
    name, equals, value_text = text.partition("=")
    parts = _INDEX.sub(r".\1", name.strip()).split(".")
    if not equals or not all(part.strip() for part in parts):
        return "an override is written KEY=VALUE, with KEY like search.trials"
    try:
        value = parse_value(value_text)
    except ValueError as error:
        return str(error)
    node: Any = tree
    path: Keys = ()
    for part in parts[:-1]:
        problem, step = _step(node, part, path)
        if problem:
            return problem
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node, path = node[step], (*path, step)
    problem, step = _step(node, parts[-1], path)
    if problem:
        return problem
    node[step] = value
    for old in [one for one in origins if one[: len(path) + 1] == (*path, step)]:
        del origins[old]
    origins[(*path, step)] = f"--set {text}"
    return ""


def _step(node: Any, part: str, path: Keys) -> tuple[str, str | int]:
    where = SpaceProblem(path=path, message="").dotted
    if isinstance(node, dict):
        return "", part
    if isinstance(node, list):
        if not part.isdecimal():
            return f"{where} is a list, so an index is needed, not {part!r}", part
        index = int(part) if len(part) < 6 else len(node)
        if index >= len(node):
            return (
                f"{where} has {plural(len(node), 'entry', 'entries')}, counted from 0; entry {part} does not exist",
                part,
            )
        return "", index
    return f"{where} is {show(node)}, so it cannot hold {part!r}", part


def with_moved_paths(document: Document, moved: Callable[[str], str]) -> Document:
    """The document with each path as ``moved`` gives it; texts that are none must come back as they are."""
    tree = document.as_dict()
    for section, key in _PLACES:
        _move(tree.get(section), key, moved)
    weights: Any = tree.get("weights")
    for backbone in list(weights) if isinstance(weights, dict) else ():
        _move(weights, backbone, moved)
        _move(weights[backbone], "path", moved)
    return replace(document, tree=tree)


def _move(section: Any, key: str, moved: Callable[[str], str]) -> None:
    if isinstance(section, dict) and isinstance(section.get(key), str):
        section[key] = moved(section[key])
