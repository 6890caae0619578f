"""The user's searches: where each one's folder is, so that a command finds it by its ID.

A search is where its folder lies, whatever was written into it before it moved. The catalogue holds one small JSON file
for each folder in which a search was started here, and is read for the folder, and for the hosts that its own start
named. It is TLSEARCH_STATE_DIR, or ``tlsearch`` in the user's state folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from tlsearch.app.catalog.moves import Move
from tlsearch.core.codec import from_plain, read_json
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.layout import SearchFolder
from tlsearch.core.secrets import remember
from tlsearch.core.trusted_hosts import origin, trust
from tlsearch.core.types import RecordedSearch
from tlsearch.core.user_folders import state_directory

MANIFEST = "search.json"
SOURCE = "space.yaml"  # as the user wrote it
RESOLVED = "resolved.yaml"  # complete, paths absolute: what a resume reads


@dataclass(frozen=True, kw_only=True)
class SearchEntry:
    """What is known of a search before its study is opened.

    Attributes:
        search_id: The name of its folder: unique in its storage, for people.
        directory: Absolute path of the search's folder in its storage, as it is now.
        source: The space.yaml it was started from.
        created: When it was started first.
        parent: ID of the search that this one was made for (by ``confirm``); empty for a search of its own.
        overrides: Values given on the command line in place of the file's: ``search.trials=8``.
        data_path: The ``--data`` given there, absolute; empty where none was.
        cwd: The current folder then, which relative paths among the overrides are relative to; empty where unknown.
        remote: Its address where its storage is a bucket; ``directory`` is this machine's folder of it then.
        uid: Its unique id, by which MLflow's runs are found; empty for a search of a version that had none.
        moved_from: Where its folder was when it was last written to; empty where it still is there. Not stored.
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
    cwd: str = ""
    remote: str = ""
    uid: str = ""
    moved_from: str = ""

    @property
    def path(self) -> Path:
        """The search's folder."""
        return Path(self.directory)

    @property
    def folder(self) -> SearchFolder:
        """What lies where in it."""
        return SearchFolder(root=self.path)

    @property
    def recorded(self) -> RecordedSearch:
        """Where its runs are in MLflow."""
        return RecordedSearch(uri=self.tracking_uri, experiment=self.experiment, search_id=self.search_id, uid=self.uid)

    @property
    def storage(self) -> str:
        """The folder or bucket that holds the search's."""
        return self.remote.rpartition("/")[0] if self.remote else str(self.path.parent)

    @property
    def moved(self) -> Callable[[str], str] | None:
        """Gives paths that its files name as they are now; None where it has not moved."""
        return Move(before=Path(self.moved_from), now=self.path).place if self.moved_from else None


def register(entry: SearchEntry, *, own: Sequence[str] = ()) -> None:
    """Writes the entry into its own folder, and the folder into the catalogue; the search is the latest one then.

    Args:
        entry: The search.
        own: Stores that this user's own file names: later commands trust their hosts, whatever is in the folder.
    """
    plain = {name: value for name, value in asdict(entry).items() if name != "moved_from"}
    text = json.dumps(plain, indent=2)
    write_atomically(entry.path / MANIFEST, text)
    mark = hashlib.sha256(os.fsencode(entry.directory)).hexdigest()[:8]
    state = state_directory(write=True)
    place = state / f"{entry.search_id}.{mark}.json"
    hosts = sorted({*_hosts_in(place), *filter(None, map(origin, own))})
    write_atomically(place, json.dumps({"directory": entry.directory, "hosts": hosts}, indent=2))
    earlier = state / f"{entry.search_id}.json"  # of a version whose catalogue held one search of a name
    if _directory_in(earlier) == entry.path:
        earlier.unlink(missing_ok=True)


def trust_own() -> None:
    """Trusts the hosts that this user's own searches were started on."""
    for file in state_directory().glob("*.json"):
        trust(*_hosts_in(file))


def _hosts_in(file: Path) -> list[str]:
    try:
        plain = read_json(file)
        # The catalogue of an earlier version has the search's own text.
        return [str(one) for one in plain.get("hosts", [origin(plain.get("tracking_uri", ""))]) if one]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def forget(entry: SearchEntry) -> None:
    """Takes a folder out of the catalogue."""
    for file in state_directory().glob("*.json"):
        if _directory_in(file) == entry.path:
            file.unlink(missing_ok=True)


def read_entry(folder: Path) -> SearchEntry | None:
    """The search that lies in a folder; None where there is none, or none that can be read."""
    folder = Path(os.path.abspath(folder))
    try:
        entry = from_plain(SearchEntry, read_json(folder / MANIFEST) | {"moved_from": ""})
        before = Path(entry.directory)
        remember(entry.tracking_uri, entry.data_path, *(one.partition("=")[2] for one in entry.overrides))
    except (OSError, ValueError):
        return None  # half-known entries of another version do not make it fail
    entry = replace(entry, search_id=folder.name, directory=str(folder))
    if before == folder or _same(before, folder):
        return entry
    entry = replace(entry, moved_from=str(before))
    place = entry.moved
    assert place is not None
    return replace(
        entry,
        source=place(entry.source),
        data_path=place(entry.data_path),
        cwd=place(entry.cwd),
        tracking_uri=place(entry.tracking_uri),
    )


def as_kept(entry: SearchEntry) -> SearchEntry:
    """The search with what its folder says of it now: a command may have settled it since it was found."""
    kept = read_entry(entry.path)
    return entry if kept is None else replace(entry, uid=kept.uid, moved_from=kept.moved_from)


def searches(storage: Path | None = None) -> list[tuple[float, SearchEntry]]:
    """All searches of a storage, or of the catalogue, with the time of their last start; the latest first."""
    trust_own()
    found: dict[Path, tuple[float, SearchEntry]] = {}
    for folder, started in _in_storage(storage) if storage else _in_catalogue():
        entry = read_entry(folder)
        if entry is not None and (entry.path not in found or found[entry.path][0] < started):
            found[entry.path] = (started, entry)
    return sorted(found.values(), key=lambda one: one[0], reverse=True)


def find(search_id: str | None = None, storage: Path | None = None) -> SearchEntry:
    """The search of that ID, or the one started last.

    Args:
        search_id: None for the latest that no other search has made. A path names a search's folder itself.
        storage: Look in this storage folder instead of the catalogue.

    Raises:
        StorageError: There is none, none of that name, or more than one.
    """
    trust_own()
    if search_id is not None and "/" in search_id and (given := read_entry(Path(search_id))) is not None:
        return given
    known = [entry for _, entry in searches(storage)]
    place = f"in {storage}" if storage else "in the catalogue of this user"
    if not any(one.search_id == search_id for one in known) and (
        broken := _unreadable(search_id, storage, bool(known))
    ):
        raise StorageError(
            f"{broken} cannot be read, so that its search cannot be opened; put a copy of the file back: the study and "
            "the trials beside it are as they were"
        )
    if not known:
        hint = "start one with `tlsearch run FILE`"
        if storage and (storage / MANIFEST).is_file():
            hint = f"it is a search's own folder: give its storage, --storage {Path(os.path.abspath(storage)).parent}"
        raise StorageError(f"no search was found {place}; {hint}")
    if search_id is None:
        return next((one for one in known if not one.parent), known[0])
    named = [one for one in known if one.search_id in (search_id, unicodedata.normalize("NFC", search_id))]
    if len(named) == 1:
        return named[0]
    if named:
        folders = "".join(f"\n  {one.directory}" for one in named)
        raise StorageError(
            f"{len(named)} searches have the name {search_id!r}:{folders}\n"
            "name the storage of the one you mean, `--storage FOLDER`, or give its folder in place of the ID"
        )
    near = get_close_matches(search_id, [one.search_id for one in known], n=1, cutoff=0.3)
    hint = f"the nearest is {near[0]!r}" if near else "`tlsearch list` shows all"
    if search_id.endswith((".yaml", ".yml")):
        hint = "a space file is started by `tlsearch run`, and its search has the ID that `tlsearch list` shows"
    raise StorageError(f"no search {search_id!r} {place}; {hint}")


def names_search(model: str) -> bool:
    """Whether the name of a model speaks of a search, by its ID or its folder, with or without ``:TRIAL``."""
    if "/" not in model and not Path(model).is_dir():
        return True
    return read_entry(Path(model.partition(":")[0])) is not None


def copies_of(entry: SearchEntry) -> list[SearchEntry]:
    """The very same search in other folders: the one it came from, and those in the catalogue."""
    places = [Path(entry.moved_from)] if entry.moved_from else []
    places += [folder for folder, _ in _in_catalogue()]
    found = []
    for folder in dict.fromkeys(places):
        other = read_entry(folder)
        if other is not None and not _same(folder, entry.path):
            if (other.uid, other.created, other.experiment) == (entry.uid, entry.created, entry.experiment):
                found.append(other)
    return found


def repetitions(entry: SearchEntry) -> list[SearchEntry]:
    """What ``confirm`` has made of a search, in its storage; the earliest first."""
    made = [one for _, one in searches(entry.path.parent) if one.parent == entry.search_id]
    return sorted(made, key=lambda one: one.created)


def _in_storage(storage: Path) -> Iterator[tuple[Path, float]]:
    for file in storage.glob(f"*/{MANIFEST}"):
        if not file.parent.name.startswith("."):  # one that is being removed
            yield file.parent, _written(file)


def _in_catalogue() -> Iterator[tuple[Path, float]]:
    for file in state_directory().glob("*.json"):
        folder = _directory_in(file)
        if folder is not None:
            yield folder, _written(file)


def _directory_in(file: Path) -> Path | None:
    try:
        return Path(read_json(file)["directory"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _unreadable(search_id: str | None, storage: Path | None, others: bool) -> Path | None:
    """The damaged file in the folder of a search of that ID; without an ID of any search, where no other is known."""
    for folder, _ in _in_storage(storage) if storage else _in_catalogue():
        meant = folder.name == search_id if search_id else not others
        if meant and (folder / MANIFEST).is_file() and read_entry(folder) is None:
            return folder / MANIFEST
    return None


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0  # removed at this moment


def _same(a: Path, b: Path) -> bool:
    """Whether two paths are one folder: linked, or mounted twice."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False
