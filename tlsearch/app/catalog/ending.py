"""Whether a search runs, has ended, or was interrupted: from its lock, its study and what its last start wrote."""

from __future__ import annotations

import json
import logging
from typing import Literal

from tlsearch.app.catalog.catalog import SearchEntry, write_atomically
from tlsearch.core.codec import read_json
from tlsearch.core.layout import SearchFolder
from tlsearch.core.text import command, plural
from tlsearch.core.types import SearchRecord, TrialState
from tlsearch.search.study.lock import is_running

logger = logging.getLogger(__name__)

ENDED = "ended.json"

Status = Literal["finished", "interrupted", "failed"]
SearchState = Literal["running", "finished", "interrupted", "failed"]


def search_state(entry: SearchEntry, record: SearchRecord) -> SearchState:
    """The search's state now.

    A search with unfinished trials that no process runs is interrupted, however its process ended: by Ctrl-C,
    SIGTERM, ``stop`` or ``kill -9``.
    """
    if is_running(SearchFolder(root=entry.path).lock):
        return "running"
    ended = kept_end(entry)
    unfinished = any(trial.state is TrialState.RUNNING for trial in record.trials)
    return "interrupted" if unfinished and ended == "finished" else ended


def ending_text(record: SearchRecord, state: SearchState) -> str:
    """What became of a search that no process runs, and how to go on."""
    if state in ("finished", "running"):
        return "has finished" if state == "finished" else "is running"
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
