"""Dataclasses as plain JSON values and back: what travels between driver, study and workers."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: Any) -> dict[str, Any]:
    """A dataclass, nested ones too, as dicts, lists and scalars."""
    return asdict(value)


def from_plain(kind: type[T], plain: Mapping[str, Any]) -> T:
    """The dataclass again; keys it does not know (of another version) are left out.

    Raises:
        TypeError: A field without default is missing.
    """
    hints = _hints(cast(Any, kind))
    known = {field.name for field in fields(cast(Any, kind))}
    return kind(**{key: _revive(hints[key], value) for key, value in plain.items() if key in known})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _revive(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if is_dataclass(hint):
        return from_plain(cast(type[Any], hint), value)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [part for part in get_args(hint) if part is not type(None)]
        return _revive(inner[0], value) if len(inner) == 1 else value
    if origin is tuple:
        return tuple(_revive(get_args(hint)[0], item) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _revive(get_args(hint)[1], item) for key, item in value.items()}
    return value
