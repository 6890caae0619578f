"""Applies the schema to a document; pydantic's errors become problems in our own words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tlsearch.config.document.positions import Document, Keys
from tlsearch.config.document.wording import nearest, show, suggest
from tlsearch.config.forms import FORMS, FileForm, keys_of
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.text import one_of

# Stand in for required values that are missing or wrong, so that the rest can still be judged.
_PLACEHOLDERS: Mapping[Keys, Any] = {
    ("name",): "unnamed",
    ("data",): {"source": "folder"},
    ("data", "source"): "folder",
    ("space",): {},
}
OPTIONAL_SECTIONS = ("defaults", "weights", "search", "resources", "cache", "tracking")

# Keys that files of earlier versions may have, and what to do about them.
RETIRED: Mapping[Keys, str] = {
    ("search", "probe_first"): "every search takes a first look at each backbone: leave it out",
    ("search", "expected_gain"): "TPE proposes the points after the first ones: leave it out",
    ("search", "portfolio"): "it is called starting_points now, which is auto or none",
}

_WORDS: Mapping[str, str] = {
    "int_type": "must be a whole number, not {value}",
    "int_parsing": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "float_parsing": "must be a number, not {value}",
    "bool_type": "must be true or false, not {value}",
    "dict_type": "must be a mapping of keys to values, not {value}",
    "mapping_type": "must be a mapping of keys to values, not {value}",
    "dataclass_type": "must be a mapping of keys to values, not {value}",
    "tuple_type": "must be a list, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "greater_than": "must be above {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than": "must be below {lt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
}


def validate(document: Document) -> tuple[FileForm, list[SpaceProblem], Document]:
    """Checks every value by itself.

    Returns:
        The form, with defaults in the faulty places; the errors; the document that knows these places
        as doubtful.
    """
    tree = deepcopy(document.tree)
    for section in OPTIONAL_SECTIONS:  # a section with all its lines commented out
        if tree.get(section, 0) is None:
            del tree[section]
    problems: list[SpaceProblem] = []
    doubts: set[Keys] = set()
    for attempt in range(6):
        try:
            return _adapter().validate_python(tree), problems, document.with_doubts(doubts)
        except ValidationError as error:
            errors = [(_path(item["loc"]), item) for item in error.errors(include_url=False)]
            if attempt == 0:
                problems += _problems(errors, document, doubts)
            for path, _ in errors:
                doubts.add(path)
                _prune(tree, path[: max(1, len(path) - attempt)])
    return _adapter().validate_python(_placeholder_tree()), problems, document.with_doubts(doubts)


def without_retired(document: Document) -> Document:
    """The document without keys that a file of an earlier version may have."""
    tree = deepcopy(document.tree)
    search = tree.get("search")
    if isinstance(search, dict) and search.get("portfolio") is False:
        search["starting_points"] = "none"
    for path in RETIRED:
        _prune(tree, path)
    return replace(document, tree=tree)


def form_schema() -> dict[str, Any]:
    """The JSON schema of the whole form, the section ``space`` left open; a fresh copy."""
    return _adapter().json_schema()


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[FileForm]:
    return TypeAdapter(FileForm)


def _path(loc: tuple[int | str, ...]) -> Keys:
    # `scheduler: {asha: {...}}` is validated as the AshaSpec inside it
    if loc[:2] == ("search", "scheduler") and len(loc) > 2:
        return ("search", "scheduler", "asha", *loc[2:])
    return loc


def _problems(errors: Sequence[tuple[Keys, Any]], document: Document, doubts: set[Keys]) -> list[SpaceProblem]:
    problems = []
    meant: set[Keys] = set()
    for path, item in errors:
        if item["type"] == "unexpected_keyword_argument":
            parent, key = path[:-1], path[-1]
            if path in RETIRED:
                problems.append(document.problem(path, f"the key {key!r} is gone: {RETIRED[path]}", at_key=True))
                continue
            right = _keys_at(parent)
            problems.append(
                document.problem(path, f"the key {key!r} is not known{suggest(key, right, keys=True)}", at_key=True)
            )
            near = nearest(key, right)
            # without a near name any absent key may have been meant
            absent = [name for name in right if not document.has((*parent, name))]
            meant |= {(*parent, near)} if near else {(*parent, name) for name in absent}
    doubts |= meant
    for path, item in errors:
        if item["type"] == "missing" and path not in meant:
            problems.append(document.problem(path, f"the key {path[-1]!r} is required here", at_key=True))
        elif item["type"] not in ("missing", "unexpected_keyword_argument") and path not in document.doubts:
            problems.append(document.problem(path, error_text(item)))
    return problems


def _keys_at(path: Keys) -> tuple[str, ...]:
    for pattern, form in FORMS.items():
        if len(pattern) == len(path) and all(a in ("*", b) for a, b in zip(pattern, path, strict=True)):
            return tuple(keys_of(form).values())
    return ()


def broken_rule(error: BaseException | None) -> str | None:
    """The first rule that pydantic found broken, in our own words; None for any other error."""
    return error_text(error.errors(include_url=False)[0]) if isinstance(error, ValidationError) else None


def error_text(item: Any) -> str:
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "rule":
        return str(context["text"])
    if kind == "string_type":
        hint = ": put it in quotes" if isinstance(value, int | float | bool) else ""
        return f"must be text, not {show(value)}{hint}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        if not choices:  # numbers
            return f"must be {context['expected']}, not {show(value)}"
        near = nearest(value, choices)
        return f"must be {one_of(choices)}, not {show(value)}" + (f"; did you mean {near!r}?" if near else "")
    if kind in _WORDS:
        limits = {key: f"{limit:g}" for key, limit in context.items() if isinstance(limit, int | float)}
        return _WORDS[kind].format(value=show(value), **limits)
    return f"{item['msg']}; it is {show(value)}"


def _prune(tree: dict[str, Any], path: Keys) -> None:
    """Takes a faulty value out, so that its default takes its place."""
    node: Any = tree
    for part in path[:-1]:
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            return
    last = path[-1]
    if isinstance(node, dict):
        node.pop(last, None)
        if path in _PLACEHOLDERS:
            node[last] = deepcopy(_PLACEHOLDERS[path])
    elif isinstance(node, list) and isinstance(last, int) and last < len(node):
        node[last] = {}


def _placeholder_tree() -> dict[str, Any]:
    return {str(path[0]): deepcopy(value) for path, value in _PLACEHOLDERS.items() if len(path) == 1}
