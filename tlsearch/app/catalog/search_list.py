"""All searches that this user knows, or that a storage holds: what each has found, where it is, what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlsearch.app.catalog.catalog import SearchEntry, searches
from tlsearch.app.catalog.stored import read_record, search_state
from tlsearch.core.errors import TlsearchError
from tlsearch.core.files import folder_bytes
from tlsearch.core.types import TrialRecord


@dataclass(frozen=True, kw_only=True)
class ListedSearch:
    """One search of the list.

    Attributes:
        state: running, finished, interrupted or failed; unknown where its study cannot be read: ``problem`` says why.
        started: When it was started last, Unix time in seconds.
        num_trials: Trials that have begun; None where unknown.
        num_bytes: Of its folder on this machine.
    """

    entry: SearchEntry
    state: str
    started: float
    num_trials: int | None
    best: TrialRecord | None
    num_bytes: int
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """{search_id, experiment, state, created, started, trials, metric, best, directory, remote, parent, num_bytes,
        problem}."""
        entry, best = self.entry, None
        if self.best is not None:
            best = {"trial": self.best.number, "value": self.best.best_value, "epoch": self.best.best_epoch}
        return {
            "search_id": entry.search_id,
            "experiment": entry.experiment,
            "state": self.state,
            "created": entry.created,
            "started": self.started,
            "trials": self.num_trials,
            "metric": entry.metric,
            "best": best,
            "directory": entry.directory,
            "remote": entry.remote or None,
            "parent": entry.parent or None,
            "num_bytes": self.num_bytes,
            "problem": self.problem or None,
        }


def list_searches(storage: Path | None = None) -> list[ListedSearch]:
    """The searches of the catalogue, or of a storage folder; the one that was started last is the first."""
    return [_listed(entry, started) for started, entry in searches(storage)]


def _listed(entry: SearchEntry, started: float) -> ListedSearch:
    size = folder_bytes(entry.path)
    try:
        record = read_record(entry)
        state = search_state(entry, record)
    except (TlsearchError, OSError) as error:  # a study in a database that is away, a folder of another user
        problem = " ".join(str(error).split())
        return ListedSearch(
            entry=entry, state="unknown", started=started, num_trials=None, best=None, num_bytes=size, problem=problem
        )
    return ListedSearch(
        entry=entry,
        state=state,
        started=started,
        num_trials=len(record.trials),
        best=record.best,
        num_bytes=size,
    )
