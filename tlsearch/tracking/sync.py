"""Sends a whole study to a tracker again: after a resume, or when MLflow was away for good."""

from __future__ import annotations

from typing import Protocol

from tlsearch.types import SearchRecord, Tracker, TrialRecord


class RecordTracker(Tracker, Protocol):
    """A tracker that takes a trial or a search's progress in one piece, and can be waited for."""

    def record_trial(self, record: TrialRecord) -> None: ...

    def record_progress(self, record: SearchRecord) -> None: ...

    def flush(self, timeout_s: float = 30.0) -> bool: ...


def sync_record(tracker: RecordTracker, record: SearchRecord) -> None:
    """Records every trial of a study and the search's progress; what is recorded already stays as it is.

    The rest of the search's own run is left to ``search_started`` and ``search_ended``, the models to BestKeeper.
    """
    for trial in record.trials:
        tracker.record_trial(trial)
    tracker.record_progress(record)
