"""Finds the search that an earlier start of the same command has begun, for schedulers that start a job again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tlsearch.app.catalog.bucket_searches import folder_of, is_bucket, take_over
from tlsearch.app.catalog.catalog import MANIFEST, RESOLVED, SOURCE, SearchEntry, find
from tlsearch.app.catalog.gather_facts import FACTS
from tlsearch.app.catalog.search_names import check_name
from tlsearch.app.searches.input_digests import INPUTS
from tlsearch.config import load_space_file
from tlsearch.core.errors import StorageError
from tlsearch.core.trusted_hosts import trust
from tlsearch.search import SearchLock, holding

_UNBORN = (SOURCE, RESOLVED, INPUTS, FACTS, "lock")  # written before the search is entered in the catalogue


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A search that exists, with its lock."""

    entry: SearchEntry
    lock: SearchLock


@contextmanager
def begun(
    file: Path, *, name: str | None, overrides: Sequence[str] = (), data_path: Path | None = None
) -> Iterator[Begun | None]:
    """The search of this name, held while the body runs; None where there is none yet.

    Raises:
        StorageError: No name was given, so that a second start could not find the first; it breaks a rule; or another
            process holds the search.
        ConfigError: As for ``prepare``.
    """
    if not name:
        raise StorageError("only a search with a --name can be found again")
    name = check_name(name)
    loaded = load_space_file(file, overrides=overrides, data_path=data_path).file
    trust(loaded.tracking.uri, loaded.search.study)
    storage = folder_of(loaded.storage)
    if is_bucket(loaded.storage):
        take_over(loaded.storage, name)
    if (storage / name / MANIFEST).is_file():
        with holding(storage / name, "run") as lock:
            yield Begun(entry=find(name, storage), lock=lock)
        return
    _clear_unborn(storage / name)
    yield None


def _clear_unborn(directory: Path) -> None:
    """Removes the folder of a start that ended before its search was entered anywhere."""
    if not directory.is_dir() or not _is_unborn(directory):
        return
    with holding(directory, "run"):
        if _is_unborn(directory):  # still: another start may have made it meanwhile
            for path in directory.iterdir():
                path.unlink()
            with suppress(OSError):
                directory.rmdir()


def _is_unborn(directory: Path) -> bool:
    names = [path.name for path in directory.iterdir()]
    return all(name in _UNBORN or name.endswith(".tmp") for name in names)
