"""Names of searches: each is the name of a folder, part of commands (``ID:TRIAL``) and of a job on a cluster."""

from __future__ import annotations

import os
import re
import time
import unicodedata
from pathlib import Path

from tlsearch.core.errors import StorageError, UsageError

MAX_BYTES = 100  # leaves room for what is added to it: -confirm-2, the suffixes of files
_SIGNS = "-._"
_RULE = (
    f"a search's name has letters, digits, and {' '.join(_SIGNS)} only, begins with a letter or digit, does not end "
    f"with a dot, and has at most {MAX_BYTES} bytes"
)
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_SLUG_CHARACTERS = 60


def check_name(name: str) -> str:
    """A name that a user gives to a search, in the composed form of Unicode (NFC).

    Raises:
        UsageError: It cannot be a folder's name on every system, or would be read as something else.
    """
    name = unicodedata.normalize("NFC", name)
    wrong = _wrong(name)
    if wrong:
        raise UsageError(f"{_RULE}; {_shown(name)} {wrong}: choose another --name")
    return name


def _wrong(name: str) -> str:
    """What breaks the rule; empty where nothing does."""
    if not name:
        return "is empty"
    bad = next((one for one in name if not _allowed(one)), None)
    if bad is not None:
        return f"has {_shown(bad)}"
    if not name[0].isalnum():
        return f"begins with {name[0]!r}"
    if name.endswith("."):
        return "ends with a dot"
    if _DEVICES.fullmatch(name):
        return "is a device's name on Windows"
    size = len(name.encode())
    return f"has {size}" if size > MAX_BYTES else ""


def _allowed(letter: str) -> bool:
    return letter.isalnum() or letter in _SIGNS or unicodedata.category(letter).startswith("M")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= MAX_BYTES else f"{text[:40]}...") if not text.isprintable() else repr(text[:120])


def refuse_lookalike(name: str, storage: Path) -> None:
    """Two names that differ in case only are one folder on some systems.

    Raises:
        StorageError: The storage has such a folder.
    """
    try:
        others = os.listdir(storage)
    except OSError:
        return  # not made yet
    same = next((one for one in others if one != name and one.casefold() == name.casefold()), None)
    if same is not None:
        raise StorageError(
            f"names of searches must differ in more than upper and lower case; {name!r} is too close to {same!r} "
            f"in {storage}: choose another --name"
        )


def new_search_id(experiment: str, storage: Path, now: float | None = None) -> str:
    """A readable ID that is free in the storage: the experiment's name and the time."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment)[:_SLUG_CHARACTERS].strip("-._") or "search"
    base = f"{slug}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    return free_name(base, storage)


def free_name(base: str, storage: Path) -> str:
    """The name, with a number where a folder of the storage has it already."""
    candidate, count = base, 1
    while (storage / candidate).exists():
        count += 1
        candidate = f"{base}-{count}"
    return candidate
