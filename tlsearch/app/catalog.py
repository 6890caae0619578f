"""The user's searches: where each one's folder is, so that a command finds it by its ID.

A search writes one small JSON file here when it starts. The folder is TLSEARCH_STATE_DIR, or
``tlsearch`` in the user's state folder.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

from tlsearch.errors import StorageError

MANIFEST = "search.json"
SOURCE = "space.yaml"  # as the user wrote it
RESOLVED = "resolved.yaml"  # complete, paths absolute: what a resume reads


@dataclass(frozen=True, kw_only=True)
class SearchEntry:
    """What is known of a search before its study is opened.

    Attributes:
        directory: Absolute path of the search's folder in its storage.
        source: The space.yaml it was started from.
        created: When it was started first.
        parent: ID of the search that this one was made for (by ``confirm``); empty for a search of its own.
        overrides: Values given on the command line in place of the file's: ``search.trials=8``.
        data_path: The ``--data`` given there, absolute; empty where none was.
        remote: Its address where its storage is a bucket; ``directory`` is this machine's folder of it then.
    """

    search_id: str
    experiment: str
    directory: str
    source: str
    tracking_uri: str
    metric: str
    created: float
    parent: str = ""
    overrides: tuple[str, ...] = ()
    data_path: str = ""
    remote: str = ""

    @property
    def path(self) -> Path:
        """The search's folder."""
        return Path(self.directory)


def state_directory() -> Path:
    """The folder of the catalogue; created where missing."""
    named = os.environ.get("TLSEARCH_STATE_DIR")
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    directory = Path(named) if named else home / "tlsearch"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def register(entry: SearchEntry) -> None:
    """Writes the entry into its own folder and into the catalogue."""
    text = json.dumps(asdict(entry), indent=2)
    write_atomically(entry.path / MANIFEST, text)
    write_atomically(state_directory() / f"{entry.search_id}.json", text)


def touch(entry: SearchEntry) -> None:
    """Makes the search the latest one."""
    register(entry)


def new_search_id(experiment: str, storage: Path, now: float | None = None) -> str:
    """A readable ID that is free in the storage: the experiment's name and the time."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", experiment).strip("-.") or "search"
    base = f"{slug}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
    candidate, count = base, 1
    while (storage / candidate).exists():
        count += 1
        candidate = f"{base}-{count}"
    return candidate


def _read(path: Path) -> SearchEntry | None:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return SearchEntry(**{**plain, "overrides": tuple(plain.get("overrides", ()))})
    except (OSError, ValueError, TypeError):
        return None  # half-known entries of another version are no reason to fail


def _entries(storage: Path | None) -> Mapping[str, tuple[float, SearchEntry]]:
    """Entries by ID with the time of their last start."""
    files = storage.glob(f"*/{MANIFEST}") if storage else state_directory().glob("*.json")
    found = {}
    for file in files:
        entry = _read(file)
        if entry is not None and entry.path.is_dir():
            found[entry.search_id] = (file.stat().st_mtime, entry)
    return found


def find(search_id: str | None = None, storage: Path | None = None) -> SearchEntry:
    """The search of that ID, or the one started last.

    Args:
        search_id: None for the latest that no other search has made.
        storage: Look in this storage folder instead of the catalogue.

    Raises:
        StorageError: There is none, or none of that name.
    """
    entries = _entries(storage)
    place = f"in {storage}" if storage else "in the catalogue of this user"
    if not entries:
        raise StorageError(f"there is no search {place}; start one with `tlsearch run FILE`")
    if search_id is None:
        own = [item for item in entries.values() if not item[1].parent] or list(entries.values())
        return max(own, key=lambda item: item[0])[1]
    if search_id in entries:
        return entries[search_id][1]
    near = get_close_matches(search_id, entries, n=1, cutoff=0.3)
    hint = f"; the nearest is {near[0]!r}" if near else ""
    raise StorageError(f"there is no search {search_id!r} {place}{hint}")
