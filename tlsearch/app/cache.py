"""What this node's stores hold, and clearing them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tlsearch.app.catalog import searches
from tlsearch.app.folders import folder_bytes
from tlsearch.codec import read_json
from tlsearch.data import cache_directory, remove_unheld, unused_images
from tlsearch.types import CacheSpec

# What was fetched; an entry is a file or a folder.
FETCHED: Mapping[str, str] = {
    "weights": "weights",
    "data": "images of a bucket",
    "datasets": "torchvision's data sets",
    "huggingface": "a set of the Hugging Face Hub",
}
STORES: Mapping[str, str] = {"images": ".npy", "features": ".bin", "solutions": ".safetensors"}
ALL_STORES = (*STORES, *FETCHED)


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One entry of a store.

    Attributes:
        store: ``images`` (decoded and resized), ``features`` (activations of a frozen prefix), ``solutions`` (linear
            probes, adapted statistics) or one of FETCHED.
        name: Its file's name; without the ending, where a .json file lies beside it.
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
    root = cache_directory(CacheSpec())
    found = [entry for store in stores for entry in (_fetched if store in FETCHED else _entries)(root / store, store)]
    return sorted(found, key=lambda entry: entry.last_used, reverse=True)


def clear_cache(stores: Sequence[str] = ALL_STORES) -> Cleared:
    """Removes entries that nobody is writing; mapped images stay, mapped features stay readable to their readers.

    Data sets that were fetched stay while a process works with them.
    """
    root = cache_directory(CacheSpec())
    removed: list[CacheEntry] = []
    in_use: list[CacheEntry] = []
    for entry in cache_entries(stores):
        if entry.store in FETCHED:
            (removed if remove_unheld(root / entry.store / entry.name) else in_use).append(entry)
            continue
        sidecar = root / entry.store / f"{entry.name}.json"
        with (unused_images if entry.store == "images" else _unwritten)(sidecar) as free:
            if free:
                sidecar.unlink(missing_ok=True)  # first, so that nobody takes half an entry for whole
                sidecar.with_suffix(STORES[entry.store]).unlink(missing_ok=True)
        (removed if free else in_use).append(entry)
    return Cleared(removed=tuple(removed), in_use=tuple(in_use))


def searches_total() -> dict[str, int]:
    """{entries, num_bytes} of the folders of all searches in the catalogue: what ``list`` shows one by one."""
    folders = [entry.path for _, entry in searches()]
    return {"entries": len(folders), "num_bytes": sum(folder_bytes(folder) for folder in folders)}


def cache_json(entries: Sequence[CacheEntry], cleared: Cleared | None = None) -> dict[str, Any]:
    """Plain values: the folder, each store's totals and the entries; or what was cleared. And what searches take."""
    answer: dict[str, Any] = {"directory": str(cache_directory(CacheSpec()))}
    if cleared is not None:
        answer["removed"] = [asdict(entry) for entry in cleared.removed]
        answer["in_use"] = [asdict(entry) for entry in cleared.in_use]
        return answer
    for store in ALL_STORES:
        held = [entry for entry in entries if entry.store == store]
        answer[store] = {"entries": len(held), "num_bytes": sum(entry.num_bytes for entry in held)}
    return answer | {"searches": searches_total(), "entries": [asdict(entry) for entry in entries]}


def _entries(folder: Path, store: str) -> Iterator[CacheEntry]:
    for sidecar in folder.glob("*.json"):
        try:
            content = _CONTENTS[store](read_json(sidecar))
            last_used = sidecar.stat().st_mtime
            num_bytes = sidecar.with_suffix(STORES[store]).stat().st_size
        except (OSError, ValueError, TypeError, AttributeError):  # removed just now, or damaged: it is computed again
            content, last_used, num_bytes = "cannot be read", 0.0, 0
        yield CacheEntry(store=store, name=sidecar.stem, content=content, num_bytes=num_bytes, last_used=last_used)


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


def _image_content(plain: Mapping[str, Any]) -> str:
    rule = plain.get("rule", {})
    return f"{rule.get('split')} images of data {str(rule.get('digest'))[:8]} at {rule.get('side')} px"


def _feature_content(plain: Mapping[str, Any]) -> str:
    key = plain.get("key", {})
    size = key.get("transform", {}).get("crop_size")
    of = f"{key.get('split')} images of data {str(key.get('data_digest'))[:8]} at {size} px"
    view = f", view {key['view']} of augmentation {key.get('augmentation')}" if key.get("view") else ""
    return f"{key.get('backbone')} below depth {key.get('depth')}, {of}{view}"


def _solution_content(plain: Mapping[str, Any]) -> str:
    return f"{str(plain.get('kind')).replace('_', ' ')} of {_feature_content(plain)}"


_CONTENTS = {
    "images": _image_content,
    "features": _feature_content,
    "solutions": _solution_content,
}


@contextmanager
def _unwritten(sidecar: Path) -> Iterator[bool]:
    """Locks an entry against writers; gives whether that was possible."""
    lock = FileLock(sidecar.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
