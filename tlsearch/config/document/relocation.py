"""Absolute paths in a file that was written before what they name has moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tlsearch.config.document.positions import Document

# Where a space file names a place, but for `storage`: a search's folder tells that itself.
_PLACES = (("data", "path"), ("tracking", "uri"), ("search", "study"))


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
