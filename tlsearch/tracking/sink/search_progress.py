"""Where a search stands after each end of a trial: the best value so far, and trials by state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tlsearch.core.types import METRIC_MODES, EndReason, SearchRecord, TrialOutcome, TrialRecord, TrialState
from tlsearch.tracking.sink.entries import SearchProgress

BEST_TRIAL = "best_trial"
COMPLETE = "trials_complete"  # in every SearchProgress

_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)  # shown even where there are none
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Progress:
    """Follows a search from its events, or takes up where its study stands."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._sign = 1.0 if METRIC_MODES.get(metric, "max") == "max" else -1.0
        self._running: set[int] = set()
        self._ended: dict[int, TrialState] = {}
        self._values: dict[int, float] = {}

    def trial_started(self, number: int) -> None:
        """A trial starts or goes on."""
        self._running.add(number)
        self._ended.pop(number, None)
        self._values.pop(number, None)

    def trial_ended(self, number: int, outcome: TrialOutcome | TrialRecord, *, at: float) -> SearchProgress:
        """Where the search stands now that a trial has ended."""
        self._running.discard(number)
        self._ended[number] = outcome.state
        value = ranked_value(outcome)
        if value is not None:
            self._values[number] = value
        return SearchProgress(ended=len(self._ended), metrics=self._metrics(), at=at)

    def restore(self, record: SearchRecord, *, now: float) -> list[SearchProgress]:
        """Where the search stood after each end of a trial, in order, as its study says."""
        self._running, self._ended, self._values = set(), {}, {}
        return list(self._replay(record, now))

    def _replay(self, record: SearchRecord, now: float) -> Iterator[SearchProgress]:
        starts = sorted((_start(trial, now), trial.number) for trial in record.trials)
        ended = [trial for trial in record.trials if trial.state is not TrialState.RUNNING]
        for at, trial in sorted(((_end(one, now), one) for one in ended), key=lambda pair: (pair[0], pair[1].number)):
            while starts and starts[0][0] <= at:
                self._running |= {starts.pop(0)[1]} - self._ended.keys()  # a clock that was set back ends one first
            yield self.trial_ended(trial.number, trial, at=at)
        self._running = {trial.number for trial in record.trials} - self._ended.keys()

    def _metrics(self) -> dict[str, float]:
        counts = Counter(self._ended.values())
        shown = [state for state in TrialState if state in _COUNTED or counts[state]]
        metrics = {f"trials_{state.value}": float(counts[state]) for state in shown}
        metrics["trials_running"] = float(len(self._running))
        if self._values:
            best = min(self._values, key=lambda number: (-self._sign * self._values[number], number))
            metrics |= {f"best_{self._metric}": self._values[best], BEST_TRIAL: float(best)}
        return metrics


def ranked_value(trial: TrialOutcome | TrialRecord) -> float | None:
    """What a trial is ranked by; None for one that has not ended, failed or diverged."""
    return trial.best_value if trial.state in _DONE and trial.reason != EndReason.DIVERGED else None


def _start(trial: TrialRecord, now: float) -> float:
    first = trial.reports[0].timestamp if trial.reports else now
    return first if trial.started is None else trial.started


def _end(trial: TrialRecord, now: float) -> float:
    last = trial.reports[-1].timestamp if trial.reports else now
    return last if trial.ended is None else trial.ended
