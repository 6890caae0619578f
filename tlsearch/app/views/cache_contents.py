"""What this node's stores hold, and clearing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlsearch.app.catalog.catalog import searches
from tlsearch.core.files import folder_bytes
from tlsearch.core.types import CacheSpec
from tlsearch.node_cache.entry_files import Entry, entries
from tlsearch.node_cache.locked_files import cache_directory, remove_fetched

# What was fetched; an entry is a file or a folder.
FETCHED: Mapping[str, str] = {
    "weights": "weights",
    "data": "images of a bucket",
    "datasets": "torchvision's data sets",
    "huggingface": "a set of the Hugging Face Hub",
}
STORES = ("images", "features", "solutions")
ALL_STORES = (*STORES, *FETCHED)


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One entry of a store.

    Attributes:
        store: ``images`` (decoded and resized), ``features`` (activations of a frozen prefix), ``solutions`` (linear
            probes, adapted statistics) or one of FETCHED.
        name: Its file's name; of what is computed, without the ending.
        content: What it is of, for people.
        num_bytes: Its data.
        last_used: Unix time in seconds.
    """

    store: str
    name: str
    content: str
    num_bytes: int
    last_used: float


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """What ``clear_cache`` removed, and what it left because a trial was using it."""

    removed: tuple[CacheEntry, ...]
    in_use: tuple[CacheEntry, ...]


def cache_entries(stores: Sequence[str] = ALL_STORES) -> list[CacheEntry]:
    """The entries of some stores, the last used first."""
    return sorted((entry for entry, _ in _held(stores)), key=lambda entry: entry.last_used, reverse=True)


def clear_cache(stores: Sequence[str] = ALL_STORES) -> Cleared:
    """Removes the entries that no process is reading or writing."""
    removed: list[CacheEntry] = []
    in_use: list[CacheEntry] = []
    for entry, remove in _held(stores):
        (removed if remove() else in_use).append(entry)
    return Cleared(removed=tuple(removed), in_use=tuple(in_use))


def searches_total() -> dict[str, int]:
    """{entries, num_bytes} of the folders of all searches in the catalogue: what ``list`` shows one by one."""
    folders = [entry.path for _, entry in searches()]
    return {"entries": len(folders), "num_bytes": sum(folder_bytes(folder) for folder in folders)}


def cache_json(listed: Sequence[CacheEntry], cleared: Cleared | None = None) -> dict[str, Any]:
    """Plain values: the folder, each store's totals and the entries; or what was cleared. And what searches take."""
    answer: dict[str, Any] = {"directory": str(cache_directory(CacheSpec()))}
    if cleared is not None:
        answer["removed"] = [asdict(entry) for entry in cleared.removed]
        answer["in_use"] = [asdict(entry) for entry in cleared.in_use]
        return answer
    for store in ALL_STORES:
        held = [entry for entry in listed if entry.store == store]
        answer[store] = {"entries": len(held), "num_bytes": sum(entry.num_bytes for entry in held)}
    return answer | {"searches": searches_total(), "entries": [asdict(entry) for entry in listed]}


def _held(stores: Sequence[str]) -> Iterator[tuple[CacheEntry, Callable[[], bool]]]:
    """The entries of some stores, each with what removes it unless it is used."""
    root = cache_directory(CacheSpec())
    for store in stores:
        if store in FETCHED:
            for fetched in _fetched(root / store, store):
                yield fetched, partial(remove_fetched, root / store / fetched.name)
        else:
            for computed in entries(root / store):
                yield _shown(computed, store), computed.remove


def _shown(entry: Entry, store: str) -> CacheEntry:
    try:
        content = _CONTENTS[store](entry.key())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # damaged, or of an earlier version
        content = "cannot be read"
    return CacheEntry(
        store=store, name=entry.path.name, content=content, num_bytes=entry.num_bytes, last_used=entry.last_used
    )


def _fetched(folder: Path, store: str) -> Iterator[CacheEntry]:
    beside = (".lock", ".json", ".list")
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or path.suffix in beside:
            continue
        with suppress(OSError):  # removed at this moment
            found = path.stat()
            num_bytes = folder_bytes(path) if path.is_dir() else found.st_size
            name = path.name.partition("-")[2] if store in ("weights", "huggingface") else path.name
            content = f"{FETCHED[store]}: {name}"
            yield CacheEntry(
                store=store, name=path.name, content=content, num_bytes=num_bytes, last_used=found.st_mtime
            )


def _image_content(key: Mapping[str, Any]) -> str:
    return f"{key['split']} images of data {str(key['digest'])[:8]} at {key['side']} px"


def _feature_content(key: Mapping[str, Any]) -> str:
    size = key.get("transform", {}).get("crop_size")
    of = f"{key.get('split')} images of data {str(key.get('data_digest'))[:8]} at {size} px"
    view = f", view {key['view']} of augmentation {key.get('augmentation')}" if key.get("view") else ""
    return f"{key.get('backbone')} below depth {key.get('depth')}, {of}{view}"


def _solution_content(key: Mapping[str, Any]) -> str:
    return f"{str(key['kind']).replace('_', ' ')} of {_feature_content(key['of'])}"


_CONTENTS = {
    "images": _image_content,
    "features": _feature_content,
    "solutions": _solution_content,
}
