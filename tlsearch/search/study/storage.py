"""Opens a search's study, for its one writer or for readers: a journal in its folder, or a database; and removes it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection

from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import Objective, Scalar
from tlsearch.search.study._private import study_id
from tlsearch.search.study.journal import Journal
from tlsearch.search.study.lock import SearchLock, holding, study_lines
from tlsearch.search.study.rdb import Pointer, connect, database_errors, read_pointer, write_pointer
from tlsearch.search.study.study import Study

if TYPE_CHECKING:
    from tlsearch.search.plan import SearchPlan


logger = logging.getLogger(__name__)

JOURNAL = "auto"


def study_attrs(plan: SearchPlan) -> dict[str, Scalar]:
    """What a study says of its search."""
    return {
        "search_id": plan.search_id,
        "experiment": plan.experiment,
        "metric": plan.setup.metric,
        "mode": plan.setup.objective.mode,
        **({"cost": plan.search.cost} if plan.search.cost else {}),
        **({"uid": plan.uid} if plan.uid else {}),
    }


def open_for_writing(
    folder: SearchFolder,
    *,
    attrs: Mapping[str, Scalar],
    url: str = JOURNAL,
    lock: SearchLock | None = None,
) -> Study:
    """Opens the search's study as its one writer, or creates it.

    Takes the search's lock unless the caller holds it, cuts a torn journal back to its last whole line (the rest is
    kept beside it) and removes stale locks.

    Args:
        folder: The search's; also where the study is in a database, it holds the lock.
        attrs: What a new study says of its search; ``mode`` is its direction.
        url: ``auto`` for a journal in the folder, else a database's.
        lock: The search's, where the caller holds it already; None takes it, and makes the folder where it is missing.

    Raises:
        StorageError: Another process is writing, the journal is damaged, the folder or the database cannot be
            written, or the study is not where ``url`` says.
    """
    lock = lock.run() if lock else _new_lock(folder)
    try:
        _quiet_optuna()
        if url != JOURNAL:
            return _open_database(folder, url, attrs=attrs, lock=lock)
        if folder.pointer.exists():
            raise StorageError(f"the study is in a database, which {folder.pointer} names; search.study must name it")
        journal = _journal(folder, lock.study_lines, writable=True)
        if journal.torn is not None:
            logger.warning("the study %s ended in half a line, which is now in %s", folder.journal, journal.torn)
        storage = journal.storage()
        existing = storage.get_all_studies()
        with journal.batch():
            if existing:
                study_id = storage.get_study_id_from_name(existing[-1].study_name)
                _complete(storage, study_id, attrs)
            else:
                study_id = _create(storage, str(attrs["search_id"]), attrs)
        return Study(storage, study_id, journal=journal, lock=lock)
    except BaseException:
        lock.release()
        raise


def _new_lock(folder: SearchFolder) -> SearchLock:
    try:
        folder.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"a search's folder must be writable; {folder.root}: {error.strerror}") from error
    return SearchLock(folder.lock)


def _journal(folder: SearchFolder, left: int, *, writable: bool) -> Journal:
    """The open journal.

    Args:
        left: How many lines its last writer left, at least.
    """
    journal = Journal(folder.journal, writable=writable)
    if journal.num_lines < left:
        journal.close()
        raise StorageError(
            f"the study {folder.journal} ends after line {journal.num_lines}, and its last writer left {left} lines: "
            f"put back a copy of the file; or delete {folder.lock}, to go on from what is left"
        )
    return journal


def _create(storage: BaseStorage, name: str, attrs: Mapping[str, Scalar]) -> int:
    direction = StudyDirection.MINIMIZE if attrs.get("mode") == "min" else StudyDirection.MAXIMIZE
    study_id = storage.create_new_study([direction], name)
    for key, value in attrs.items():
        storage.set_study_user_attr(study_id, key, value)
    return study_id


def _complete(storage: BaseStorage, study_id: int, attrs: Mapping[str, Scalar]) -> None:
    """Writes what a study without trials lacks: the write that was to make it may have been torn."""
    if storage.get_n_trials(study_id) == 0:
        known = storage.get_study_user_attrs(study_id)
        for key, value in attrs.items():
            if key not in known:
                storage.set_study_user_attr(study_id, key, value)


def _open_database(folder: SearchFolder, url: str, *, attrs: Mapping[str, Scalar], lock: SearchLock) -> Study:
    """The pointer in the folder is written when the study is whole: without it the study is made again."""
    if folder.journal.exists():
        raise StorageError(f"the study is the journal {folder.journal}; search.study must be {JOURNAL}")
    pointer = read_pointer(folder.pointer)
    storage = connect(url, writable=True)
    with database_errors(url):
        names = {storage.get_study_name_from_id(study_id(one)) for one in storage.get_all_studies()}
        name = pointer.name if pointer else str(attrs["search_id"])
        if pointer and name not in names:
            raise StorageError(f"the database {url} does not hold the study {name!r} any more")
        if not pointer:
            if name in names:
                _delete_unused(storage, name, url, uid=str(attrs.get("uid", "")))
            with storage.transaction():
                _create(storage, name, attrs)
        if not pointer or pointer.url != url:
            write_pointer(folder.pointer, Pointer(url=url, name=name))
        found = storage.get_study_id_from_name(name)
        return Study(storage, found, journal=None, lock=lock, batch=storage.transaction)


def _delete_unused(storage: BaseStorage, name: str, url: str, *, uid: str) -> None:
    """A study without trials is what a crash left of this very search; any other is another search's."""
    study_id = storage.get_study_id_from_name(name)
    attrs = storage.get_study_user_attrs(study_id)
    if storage.get_n_trials(study_id) or attrs.get("uid", "") != uid:
        raise StorageError(f"the database {url} holds a study {name!r} already: choose another --name for the search")
    storage.delete_study(study_id)


def open_in_memory(objective: Objective) -> Study:
    """A new study that no file holds and that ends with the process: of a simulated search."""
    _quiet_optuna()
    storage = InMemoryStorage()
    return Study(storage, _create(storage, "simulated", {"mode": objective.mode}), journal=None, lock=None)


def open_for_reading(folder: SearchFolder, moved: Callable[[str], str] | None = None) -> Study | None:
    """A snapshot of the study as it is now, also while it is written; None where there is none yet.

    Args:
        folder: The search's.
        moved: Gives a database's address as it is now, where the search's folder has moved.

    Raises:
        StorageError: The journal is damaged, or the database cannot be read.
    """
    _quiet_optuna()
    pointer = read_pointer(folder.pointer)
    if pointer:
        url = moved(pointer.url) if moved else pointer.url
        database = connect(url, writable=False)
        with database_errors(url):
            return Study(database, database.get_study_id_from_name(pointer.name), journal=None, lock=None)
    left = study_lines(folder.lock)
    if not left and not folder.journal.exists():
        return None
    journal = _journal(folder, left, writable=False)
    journal.close()  # all is in memory
    storage = journal.storage()
    existing = storage.get_all_studies()
    if not existing:
        return None
    return Study(storage, storage.get_study_id_from_name(existing[-1].study_name), journal=None, lock=None)


def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


_REMOVED = ".removed-"  # a search under such a name is none any more


def remove_folder(folder: Path, mark: str) -> None:
    """Removes the folder, and the study where it is in a database.

    Args:
        mark: Tells this removal from others of folders of the same name.

    Raises:
        StorageError: The search runs, or something cannot be removed.
    """
    finish_removals(folder.parent)
    aside = folder.with_name(f"{_REMOVED}{mark[:16]}")
    with holding(folder, "remove"):
        try:
            folder.rename(aside)
        except OSError as error:
            raise StorageError(f"{folder} cannot be removed: {error.strerror or error}") from error
        crash_point("search_set_aside")
        _remove(aside)


def finish_removals(storage: Path) -> None:
    """Removes what a death has left of searches that were being removed."""
    for folder in storage.glob(f"{_REMOVED}*"):
        with suppress(StorageError), holding(folder, "remove"):
            _remove(folder)


def _remove(aside: Path) -> None:
    pointer = read_pointer(SearchFolder(root=aside).pointer)
    if pointer is not None:
        storage = connect(pointer.url, writable=True)
        with database_errors(pointer.url), suppress(KeyError):
            storage.delete_study(storage.get_study_id_from_name(pointer.name))
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise StorageError(f"{aside} cannot be removed whole: {error.strerror or error}") from error
