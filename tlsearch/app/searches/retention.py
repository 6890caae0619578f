"""Keeps the storage small: what running trials need to go on, and the best models; nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from tlsearch.core.types import SearchObserver, SearchRecord, TrialOutcome, TrialState
from tlsearch.tracking import BestKeeper


class Tidier(SearchObserver):
    """Deletes the folders of ended trials that are not among the best; comes after the keeper, which says so."""

    def __init__(self, keeper: BestKeeper, *, directory: Path) -> None:
        self._keeper = keeper
        self._trials = directory / "trials"
        self._ended: set[int] = set()

    def restore(self, record: SearchRecord) -> None:
        """Deletes what an earlier start left behind."""
        self._ended = {trial.number for trial in record.trials if trial.state is not TrialState.RUNNING}
        self._delete()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Deletes the trial's running checkpoint, and the folders of all trials that are not kept."""
        self._ended.add(number)
        self._delete()

    def _delete(self) -> None:
        kept = set(self._keeper.kept)
        for number in self._ended & kept:
            shutil.rmtree(self._trials / str(number) / "running", ignore_errors=True)
        for number in self._ended - kept:
            shutil.rmtree(self._trials / str(number), ignore_errors=True)
        self._ended &= kept
