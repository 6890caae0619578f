"""Sends a whole study to a tracker again: after a resume, or when MLflow was away for good."""

from __future__ import annotations

from typing import Protocol

from tlsearch.types import SearchRecord, Tracker, TrialRecord


class RecordTracker(Tracker, Protocol):
    """A tracker that takes a trial in one piece, and can be waited for."""

    def record_trial(self, record: TrialRecord) -> None: ...

    def flush(self, timeout_s: float = 30.0) -> bool: ...


def sync_record(tracker: RecordTracker, record: SearchRecord) -> None:
    """Records every trial of a study; what is recorded already stays as it is.

    The search's own run is left to ``search_started`` and ``search_ended``, the models to BestKeeper.
    """
    for trial in record.trials:
        tracker.record_trial(trial)
