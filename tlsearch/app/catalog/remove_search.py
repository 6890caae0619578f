"""Removes a search: its folder, the searches that repeat its best trials, and, where asked, what it has in MLflow."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tlsearch.app.catalog.catalog import SearchEntry, copies_of, forget, repetitions
from tlsearch.core.errors import StorageError
from tlsearch.core.files import folder_bytes
from tlsearch.search import holding
from tlsearch.search.bucket import Mirror
from tlsearch.search.study.storage import remove_folder
from tlsearch.tracking import find_run_ids
from tlsearch.tracking.stored_search import Deleted, delete_runs


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What a removal takes away.

    Attributes:
        entry: The search.
        repeats: Searches that ``confirm`` has made of its best trials; they go with it.
        num_bytes: Of all their folders on this machine.
        num_runs: Runs of their trials in MLflow.
        shared_with: Another folder that holds the same search, whose runs these are as well; empty for none.
    """

    entry: SearchEntry
    repeats: tuple[SearchEntry, ...]
    num_bytes: int
    num_runs: int
    shared_with: str = ""

    @property
    def all(self) -> tuple[SearchEntry, ...]:
        """The search and its repeats."""
        return (self.entry, *self.repeats)


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed; ``deleted`` is None where MLflow keeps the runs."""

    removal: Removal
    deleted: Deleted | None

    def as_json(self) -> dict[str, Any]:
        """{search_id, directory, removed, num_bytes, mlflow: {runs, models, registered}}: counts of what is gone."""
        gone = self.deleted or Deleted()
        return {
            "search_id": self.removal.entry.search_id,
            "directory": self.removal.entry.directory,
            "removed": [one.search_id for one in self.removal.all],
            "num_bytes": self.removal.num_bytes,
            "mlflow": {"runs": gone.num_runs, "models": gone.num_models, "registered": gone.num_registered},
        }


def plan_removal(entry: SearchEntry) -> Removal:
    """What goes with a search; nothing is removed.

    Raises:
        StorageError: Another process holds it.
    """
    repeats = tuple(repetitions(entry))
    everything = (entry, *repeats)
    with _all_idle(everything):
        pass
    others = copies_of(entry)
    return Removal(
        entry=entry,
        repeats=repeats,
        num_bytes=sum(folder_bytes(one.path) for one in everything),
        num_runs=sum(len(find_run_ids(one.recorded)) for one in everything),
        shared_with=others[0].directory if others else "",
    )


def remove_search(removal: Removal, *, with_runs: bool) -> Removed:
    """Removes it.

    Args:
        with_runs: Delete its runs and models in MLflow too; what registered versions are made of stays.

    Raises:
        StorageError: It runs, or cannot be removed; or its runs are those of another folder as well.
        TrackingError: MLflow cannot delete the runs: nothing else is removed then.
    """
    if with_runs and removal.shared_with:
        raise StorageError(
            f"{removal.entry.path} is a copy of {removal.shared_with}, and the runs in MLflow are of both: "
            "remove it without --mlflow"
        )
    deleted = None
    with _all_idle(removal.all):
        if with_runs:
            parts = [delete_runs(one.recorded) for one in reversed(removal.all)]
            deleted = Deleted(
                num_runs=sum(one.num_runs for one in parts),
                num_models=sum(one.num_models for one in parts),
                num_registered=sum(one.num_registered for one in parts),
            )
    for one in reversed(removal.all):
        if one.remote:
            Mirror(uri=one.remote, directory=one.path).remove()
        remove_folder(one.path, uuid.uuid4().hex)
        forget(one)
    return Removed(removal=removal, deleted=deleted)


def _all_idle(entries: tuple[SearchEntry, ...]) -> ExitStack:
    """No other process writes to one of these searches while the stack is open."""
    with ExitStack() as stack:
        for one in entries:
            stack.enter_context(holding(one.path, "remove"))
        return stack.pop_all()
