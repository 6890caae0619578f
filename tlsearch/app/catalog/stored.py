"""A search as it is stored: its space file, its state, its end, its log; and made ready to be written to again."""

from __future__ import annotations

import json
import logging
import uuid
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tlsearch.app.catalog.catalog import MANIFEST, RESOLVED, SearchEntry, as_kept, copies_of, register
from tlsearch.app.catalog.screen_file import narrowed
from tlsearch.config import SpaceFile, dump_resolved
from tlsearch.core.codec import read_json
from tlsearch.core.errors import SpaceError, SpaceProblem, StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.text import command, plural
from tlsearch.core.types import SearchRecord, TrialState
from tlsearch.results.leaderboard.search_facts import plateau_text
from tlsearch.search import read_search
from tlsearch.search.json_logs import logging_to
from tlsearch.search.study.lock import is_running
from tlsearch.search.study.rdb import read_pointer, write_pointer
from tlsearch.space import Space, load_resolved

logger = logging.getLogger(__name__)


def stored_file(entry: SearchEntry, purpose: str, data_path: Path | None = None) -> tuple[SpaceFile, Space]:
    """What the search goes by, with its paths as they are now, and its space as its screen has left it.

    Args:
        purpose: For the message: ``so it cannot be resumed``.
        data_path: Where its images are, in place of what it says.

    Raises:
        StorageError: The folder does not hold it.
        SpaceError: It has errors: what it names may have gone.
    """
    path = entry.path / RESOLVED
    if not path.exists():
        raise StorageError(f"a search's folder holds {RESOLVED}; {entry.path} does not, {purpose}")
    try:
        file, space = load_resolved(path, moved=entry.moved, data_path=data_path)
    except SpaceError as error:
        raise SpaceError([_put_back(entry, one) for one in error.faults]) from error
    return file, narrowed(entry, space)


def _put_back(entry: SearchEntry, problem: SpaceProblem) -> SpaceProblem:
    if problem.kind != "absent":
        return problem
    advice = "a search finds its files where they were when it began: move it back, or make a link there"
    if problem.path == ("data", "path"):
        elsewhere = command("resume", entry.parent or entry.search_id, "--data", "PLACE")
        advice += f"; {elsewhere} has the search find the same images in another place"
    return replace(problem, message=f"{problem.message}; {advice}")


def read_record(entry: SearchEntry) -> SearchRecord:
    """The search as its study tells it; works while it runs."""
    return read_search(
        entry.path,
        search_id=entry.search_id,
        experiment=entry.experiment,
        metric=entry.metric,
        moved=entry.moved,
    )


def settle(entry: SearchEntry) -> SearchEntry:
    """Takes a search's place for its own before it is written to; the caller holds its lock.

    Paths in its files follow a folder that has moved. A copy of a search that is still there becomes a search of its
    own: it gets a unique id, and with it runs of its own in MLflow.

    Raises:
        StorageError: The study of a copy is in the database that the other one writes to.
    """
    entry = as_kept(entry)
    others = copies_of(entry)
    if not (others or entry.moved_from):
        return entry
    if others:
        _refuse_shared_study(entry, others[0])
        logger.warning(
            "%s is a copy of the search in %s: from now on it is a search of its own, with its own runs in MLflow",
            entry.path,
            others[0].path,
        )
        entry = replace(entry, uid=uuid.uuid4().hex)
    if entry.moved_from:
        file, _ = stored_file(entry, f"nor can it be written to: {MANIFEST} alone is not a search")
        write_atomically(entry.path / RESOLVED, dump_resolved(file))
        _settle_study(entry)
    entry = replace(entry, moved_from="")
    register(entry)
    return entry


def _settle_study(entry: SearchEntry) -> None:
    """The folder of a search that has moved names its study's SQLite file where that is now."""
    path = entry.folder.pointer
    if entry.moved is None or (pointer := read_pointer(path)) is None:
        return
    url = entry.moved(pointer.url)
    if url != pointer.url:
        write_pointer(path, replace(pointer, url=url))


def _refuse_shared_study(entry: SearchEntry, other: SearchEntry) -> None:
    here = read_pointer(entry.folder.pointer)
    if here is None:
        return
    here = replace(here, url=entry.moved(here.url)) if entry.moved else here
    if read_pointer(other.folder.pointer) == here:
        raise StorageError(
            f"{entry.path} is a copy of the search in {other.path}, and both would write to one study, {here.name!r} "
            f"in its database: go on with that search, or remove its folder if this one takes its place"
        )


ENDED = "ended.json"

Status = Literal["finished", "interrupted", "failed"]
SearchState = Literal["running", "finished", "interrupted", "failed"]


def search_state(entry: SearchEntry, record: SearchRecord) -> SearchState:
    """The search's state now.

    A search with unfinished trials that no process runs is interrupted, however its process ended: by Ctrl-C,
    SIGTERM, ``stop`` or ``kill -9``.
    """
    if is_running(entry.folder.lock):
        return "running"
    ended = kept_end(entry)
    unfinished = any(trial.state is TrialState.RUNNING for trial in record.trials)
    return "interrupted" if unfinished and ended == "finished" else ended


def ending_text(record: SearchRecord, state: SearchState) -> str:
    """What became of a search that no process runs, and how to go on."""
    if state in ("finished", "running"):
        plateau = f": it {plateau_text(record, record.plateau)}" if record.plateau else ""
        return f"has finished{plateau}" if state == "finished" else "is running"
    unfinished = sum(trial.state is TrialState.RUNNING for trial in record.trials)
    waiting = f" with {plural(unfinished, 'unfinished trial')}" if unfinished else ""
    waiting = waiting if record.trials else " before its first trial"
    happened = "was interrupted" if state == "interrupted" else "has failed"
    return f"{happened}{waiting}; go on with {command('resume', record.search_id)}"


def forget_end(entry: SearchEntry) -> None:
    """Another start begins: until it has ended, nothing is known of its end."""
    (entry.path / ENDED).unlink(missing_ok=True)


def keep_end(entry: SearchEntry, status: Status) -> None:
    """Writes how the last start ended, for a later ``sync``; where the disk is full it has been interrupted."""
    try:
        write_atomically(entry.path / ENDED, json.dumps({"status": status}))
    except OSError as error:
        logger.warning("%s cannot be written: %s", entry.path / ENDED, error.strerror)


def kept_end(entry: SearchEntry) -> Status:
    """How the last start ended; a start that was killed says nothing, and is interrupted."""
    try:
        status = read_json(entry.path / ENDED)["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "interrupted"
    return status if status in ("finished", "failed") else "interrupted"


def search_log(entry: SearchEntry) -> AbstractContextManager[None]:
    """Writes ``log.jsonl`` in the search's folder while the body runs."""
    return logging_to(entry.folder.log, search=entry.search_id)
