"""JSON that another program may have changed, and dataclasses as JSON values and back.

What is too large, too deep or of the wrong type is an error that names its source, never a crash.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from tlsearch.core.errors import StorageError
from tlsearch.core.files import read_regular

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_BYTES = 100_000_000
MAX_DEPTH = 64  # of lists and objects in each other; what is read may be copied and printed, which recurses

_NAMES: Mapping[type, str] = {dict: "an object", list: "a list", str: "a text", type(None): "null"}

T = TypeVar("T")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: The file cannot be opened, is not a regular one, or is too large.
        StorageError: It holds no JSON object within the limits; the message names the file.
    """
    return parse_json(read_regular(path, MAX_BYTES), path, dict)


def read_shaped(path: Path, shape: type[T]) -> T:
    """As ``read_json``, of an object that is a dataclass; keys that it does not know are left out.

    Raises:
        OSError: The file cannot be opened.
        StorageError: It holds something else.
    """
    plain = read_json(path)
    try:
        return from_plain(shape, plain)
    except ValueError as error:
        raise StorageError(f"{path} cannot be read: {error}") from error


def parse_json(text: str | bytes, source: object, kind: type[T]) -> T:
    """The JSON value in a text.

    Args:
        text: Bytes are UTF-8.
        source: Where the text is from, for messages.
        kind: What the value must be: ``dict`` or ``list``.

    Raises:
        StorageError: It is not JSON, too large, too deep, or another kind of value.
    """
    if len(text) > MAX_BYTES:
        raise StorageError(f"{source} cannot be read: JSON may have at most {MAX_BYTES} bytes")
    try:
        value = json.loads(text)
    except RecursionError:
        raise StorageError(_too_deep(source)) from None
    except ValueError as error:
        raise StorageError(f"{source} cannot be read: it must be JSON: {error}") from None
    if not isinstance(value, kind):
        raise StorageError(f"{source} cannot be read: it must hold {_NAMES[kind]}, not {_name(value)}")
    if _brackets(text) > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise StorageError(_too_deep(source))
    return value


def _too_deep(source: object) -> str:
    return f"{source} cannot be read: its lists and objects may be nested at most {MAX_DEPTH} deep"


def _brackets(text: str | bytes) -> int:
    """At least the depth; spares most texts the walk."""
    if isinstance(text, str):
        return text.count("[") + text.count("{")
    return text.count(b"[") + text.count(b"{")


def _depth(value: object) -> int:
    """How deep lists and objects are nested, without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def to_plain(value: DataclassInstance) -> dict[str, Any]:
    """A dataclass, nested ones too, as dicts, lists and scalars."""
    return asdict(value)


def fields_of(kind: type[DataclassInstance], value: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass that another one's are, by name.

    Args:
        kind: A base of the value's class.
    """
    return {field.name: getattr(value, field.name) for field in fields(kind)}


def from_plain(kind: type[T], plain: Mapping[str, Any]) -> T:
    """The dataclass again; keys it does not know (of another version) are left out.

    Raises:
        ValueError: A field without default is missing, or a value has another type than its field.
    """
    name = kind.__name__
    if not isinstance(plain, Mapping):
        raise ValueError(f"{name} must be an object, not {_name(plain)}")
    hints = _hints(cast(Any, kind))
    known = {field.name for field in fields(cast(Any, kind))}
    values = {key: _revive(hints[key], value, f"{name}.{key}") for key, value in plain.items() if key in known}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{name} is incomplete: {error}") from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _revive(hint: Any, value: Any, where: str) -> Any:
    if hint is Any or hint is object:
        return value
    if is_dataclass(hint):
        return from_plain(cast(type[Any], hint), value)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        kinds = [one for one in inner if one is not type(None)]
        if value is None and len(kinds) < len(inner):
            return None
        if len(kinds) == 1:
            return _revive(kinds[0], value, where)
        if any(_fits(one, value) for one in kinds):
            return value
    elif origin is tuple and isinstance(value, list | tuple) and (inner[-1] is ... or len(value) == len(inner)):
        return tuple(_revive(inner[0], one, where) for one in value)
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        of_key = int if inner[0] is int else str  # JSON has keys of text alone
        return {of_key(key): _revive(inner[1], one, where) for key, one in value.items()}
    elif origin is Literal and value in inner:
        return value
    elif isinstance(hint, type) and issubclass(hint, Enum):
        return hint(value)
    elif _fits(hint, value):
        return value
    raise ValueError(f"{where} must be {getattr(hint, '__name__', hint)}, not {_name(value)}")


def _fits(hint: Any, value: object) -> bool:
    """Whether a value is of a type; whole numbers are numbers, booleans are not."""
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, (int, float) if hint is float else hint)


def _name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)
