"""Sends a search to MLflow again: the whole record, from its study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.provenance import record_end, record_start
from tlsearch.app.catalog.stored import kept_end, read_record, settle, stored_file
from tlsearch.app.searches.execute import make_tracker
from tlsearch.search import holding
from tlsearch.tracking import BestKeeper

_MLFLOW_S = 300.0  # how long it is waited for


@dataclass(frozen=True, kw_only=True)
class SyncEnd:
    """What was sent: ``run_ids`` by trial number; ``unsent`` counts the records that MLflow did not get."""

    entry: SearchEntry
    num_trials: int
    run_ids: Mapping[int, str]
    unsent: int


def sync_search(entry: SearchEntry) -> SyncEnd:
    """Makes MLflow say what the study says; sending twice changes nothing.

    Args:
        entry: The search; it must not run, since its own process sends meanwhile.

    Raises:
        StorageError: The search runs, or its folder cannot be read.
        TrackingError: MLflow cannot be used.
    """
    with holding(entry.path, "sync"):
        entry = settle(entry)
        file, record = stored_file(entry, "so it cannot be sent")[0], read_record(entry)
        tracker = make_tracker(entry)
        keeper = BestKeeper(tracker, directory=entry.path, keep=file.tracking.keep_best, objective=record.objective)
        try:
            record_start(tracker, entry, file)
            tracker.record_search(record)
            keeper.restore(record)
            record_end(tracker, entry, record, kept_end(entry), timeout_s=_MLFLOW_S)
        finally:
            unsent = tracker.close(_MLFLOW_S)
    return SyncEnd(entry=entry, num_trials=len(record.trials), run_ids=tracker.run_ids(), unsent=unsent)
