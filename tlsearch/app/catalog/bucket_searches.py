"""Searches whose storage is a bucket: this machine has a folder of each, and takes over what another one began."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tlsearch.app.catalog.catalog import MANIFEST, SearchEntry, find
from tlsearch.app.catalog.search_names import refuse_lookalike
from tlsearch.core.codec import read_json
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.layout import SearchFolder
from tlsearch.core.text import command
from tlsearch.core.types import SearchObserver, TrialFactory
from tlsearch.search.bucket import Mirror, machine_folder
from tlsearch.search.bucket_trials import Dropper, Fetcher, ThroughBucket
from tlsearch.search.study.lock import holder_of, holding


def is_bucket(storage: str) -> bool:
    """Whether a storage is an address, not a folder."""
    return "://" in storage


def folder_of(storage: str) -> Path:
    """Where this machine has the searches of a storage."""
    return machine_folder(storage.rstrip("/")) if is_bucket(storage) else Path(storage)


def address_of(storage: str, search_id: str) -> str:
    """A search's address in its bucket; empty where the storage is a folder."""
    return f"{storage.rstrip('/')}/{search_id}" if is_bucket(storage) else ""


@dataclass(frozen=True, kw_only=True)
class Through:
    """What a search in a bucket does beside one in a folder, which does nothing.

    Attributes:
        factory: Opens trials in workers that share no folder; None is the usual one.
        fetch: Brings the model of an ended trial, by its number, to this machine.
        before: Observers that hear before the models of ended trials are looked at.
        after: Observers that hear when what is not kept has been deleted.
        save: Puts the driver's own files into the bucket.
    """

    factory: TrialFactory | None = None
    fetch: Callable[[int], object] = lambda _: None
    before: tuple[SearchObserver, ...] = ()
    after: tuple[SearchObserver, ...] = ()
    save: Callable[[], object] = lambda: None


def through_bucket(entry: SearchEntry) -> Through:
    """What a search needs for its storage; its files are in the bucket when this returns.

    Raises:
        StorageError: The bucket cannot be written.
    """
    if not entry.remote:
        return Through()
    mirror = Mirror(uri=entry.remote, directory=entry.path)
    mirror.push_own()
    fetcher = Fetcher(mirror, models=bool(entry.parent))  # what repeats trials compares the models of all
    return Through(
        factory=ThroughBucket(uri=entry.remote),
        fetch=fetcher.fetch,
        before=(fetcher,),
        after=(Dropper(mirror),),
        save=mirror.push_own,
    )


def take_over(storage: str, search_id: str) -> bool:
    """Brings a search from its bucket, unless a process of this machine holds it; whether there is one.

    Raises:
        StorageError: The bucket cannot be read.
    """
    directory = folder_of(storage) / search_id
    if holder_of(SearchFolder(root=directory).lock) is not None:
        return (directory / MANIFEST).is_file()
    mirror = Mirror(uri=address_of(storage, search_id), directory=directory)
    if MANIFEST not in mirror.parts():
        return False
    directory.mkdir(parents=True, exist_ok=True)
    with holding(directory, "fetch"):
        mirror.pull_own()
        here = {"directory": str(directory), "remote": mirror.uri}  # the bucket may have been copied or renamed
        plain = read_json(directory / MANIFEST)
        write_atomically(directory / MANIFEST, json.dumps({**plain, **here}, indent=2))
    return True


def find_in_bucket(storage: str, search_id: str | None) -> SearchEntry:
    """A search of a bucket, as it was when its driver last wrote there, or as it is now where that is this machine.

    Raises:
        StorageError: No ID was given, or the bucket holds no such search.
    """
    if search_id is None:
        raise StorageError(f"a search in {storage} is named by its ID")
    if not take_over(storage, search_id):
        raise StorageError(f"{storage} holds no search {search_id!r}")
    return find(search_id, folder_of(storage))


def refuse_taken(storage: str, search_id: str) -> None:
    """Ends a start whose name its storage has already, or has in other letters.

    Raises:
        StorageError: It does; says which process uses the search now.
    """
    address, directory = address_of(storage, search_id), folder_of(storage) / search_id
    if address and MANIFEST in Mirror(uri=address, directory=directory).parts():
        raise StorageError(
            f"a search's name must be new in its storage; {address} exists: go on with it by --or-resume, "
            "or choose another --name"
        )
    if os.path.lexists(directory):
        holder = holder_of(SearchFolder(root=directory).lock)
        used = f" and is in use by {holder}" if holder else ""
        raise StorageError(
            f"a search's name must be new in its storage; {search_id!r} exists in {directory.parent}{used}: "
            f"go on with it by {command('resume', search_id)}, or choose another --name"
        )
    if not address:
        refuse_lookalike(search_id, directory.parent)
