"""The words of errors: how a value is shown, which right name is nearest."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tlsearch.config.document.key_aliases import alias, home
from tlsearch.core.secrets import mask
from tlsearch.core.text import one_of

_SHOWN = 60
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///(?:file:)?)([^?]*)(.*)", re.DOTALL)


def show(value: Any) -> str:
    """A value as its user wrote it, shortened, secrets masked: ``'abc'``, ``true``, ``[1, 2]``, ``a mapping``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        text = "[" + ", ".join("..." if isinstance(one, list | tuple) else show(one) for one in value[:8])
        return _shorten(text + (", ...]" if len(value) > 8 else "]"))
    if isinstance(value, str):
        value = mask(value)
    return _shorten(repr(value))  # before it is cut: half an address hides what is secret in it


def show_flow(value: Any) -> str:
    """As ``show``, with what a mapping holds: ``{int: [0, 3]}``."""
    if not isinstance(value, dict) or not value:
        return show(value)
    return _shorten("{" + ", ".join(f"{key}: {show_flow(one)}" for key, one in value.items()) + "}")


def _shorten(text: str) -> str:
    """A long text without its middle: paths mostly differ at their ends."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2 - 2]}...{text[1 - _SHOWN // 2 :]}"


def is_url(value: Any) -> bool:
    """Whether a value is text like ``https://...`` or ``s3://...``."""
    return isinstance(value, str) and _URL.match(value) is not None


def split_sqlite(url: str) -> tuple[str, str, str] | None:
    """The beginning of a SQLite URL, its file and its options, which together are the URL; None for any other text."""
    match = _SQLITE.fullmatch(url)
    return None if match is None else (match[1], match[2], match[3])


def nearest(name: Any, names: Iterable[str]) -> str | None:
    """The right name nearest to a wrong one, or None where none is near."""
    if not isinstance(name, str):
        return None
    names = tuple(names)
    if (meant := alias(name, names)) is not None:
        return meant
    by_lower = {one.lower(): one for one in names}
    begun = [one for lower, one in by_lower.items() if len(name) > 2 and lower.startswith(name.lower())]
    if len(begun) == 1:
        return begun[0]
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def suggest(name: Any, names: Iterable[str], *, most: int = 12, keys: bool = False) -> str:
    """The end of an error about a wrong name: the nearest right one, else all of them if they are few.

    Args:
        name: The wrong one.
        names: The right ones.
        most: Up to this many right ones are listed.
        keys: They are keys of a section: the name may be a key of another one.
    """
    names = tuple(names)
    if keys and isinstance(name, str) and alias(name, names) is None and (place := home(name)) is not None:
        return f"; did you mean {place}?"
    near = nearest(name, names)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; it may be {one_of(names)}" if 0 < len(names) <= most else ""


def in_address(path: Path) -> str:
    """A path as it stands in ``sqlite:///FILE``, where a percent sign begins an escape, and a question mark options."""
    return str(path).replace("%", "%25").replace("?", "%3F")


def bucket_address(path: Path | str) -> str:
    """The address that a path was before pathlib folded its two slashes; empty where it is a path."""
    scheme, slashes, rest = str(path).partition(":/")
    return f"{scheme}://{rest.lstrip('/')}" if scheme == "s3" and slashes else ""
