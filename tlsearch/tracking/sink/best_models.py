"""Keeps the models of the best trials, and of no others."""

from __future__ import annotations

from pathlib import Path

from tlsearch.core.types import Mode, SearchObserver, SearchRecord, Tracker, TrialOutcome, TrialState
from tlsearch.tracking.sink.search_progress import ranked_value

_CHECKPOINT = "trials/{}/best"  # a trial's best checkpoint in the search's folder


class BestKeeper(SearchObserver):
    """Has the tracker keep the models of the ``keep`` best ended trials.

    Complete and pruned trials count, diverged ones do not; of two equal values the earlier trial is better.
    What is kept depends on which trials have ended, not on the order in which they did.

    Args:
        directory: The search's folder.
        keep: How many; 0 keeps none.
        mode: Whether a larger value of the metric is better.
    """

    def __init__(self, tracker: Tracker, *, directory: Path, keep: int, mode: Mode) -> None:
        self._tracker = tracker
        self._directory = directory
        self._keep = keep
        self._sign = 1.0 if mode == "max" else -1.0
        self._values: dict[int, float] = {}  # of the kept trials

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the kept trials, best first."""
        return tuple(sorted(self._values, key=self._rank))

    def restore(self, record: SearchRecord) -> None:
        """Makes the models right after a resume: keeps the best of the study, drops all others."""
        for trial in record.trials:
            value = ranked_value(trial)
            if value is not None:
                self._values[trial.number] = value
        best = self.kept[: self._keep]
        self._values = {number: self._values[number] for number in best}
        for trial in record.trials:
            if trial.number not in self._values and trial.state is not TrialState.RUNNING:
                self._tracker.drop_model(trial.number)
        for number in best:
            self._tracker.keep_model(number, self._checkpoint(number))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Keeps the trial if it is among the best now, and drops the one that no longer is."""
        value = ranked_value(outcome)
        if value is None:
            return
        is_new = number not in self._values
        self._values[number] = value
        for lost in self.kept[self._keep :]:
            del self._values[lost]
            if lost != number or not is_new:
                self._tracker.drop_model(lost)
        if number in self._values and is_new:
            self._tracker.keep_model(number, self._checkpoint(number))

    def _rank(self, number: int) -> tuple[float, int]:
        return (-self._sign * self._values[number], number)

    def _checkpoint(self, number: int) -> Path:
        return self._directory / _CHECKPOINT.format(number)
