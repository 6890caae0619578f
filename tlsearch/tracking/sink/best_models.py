"""Where a search stands after each end of a trial: the best value, trials by state, and the models that are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import Objective, SearchObserver, SearchRecord, Tracker, TrialOutcome, TrialRecord, TrialState
from tlsearch.tracking.sink.entries import SearchProgress


class BestKeeper(SearchObserver):
    """Has the tracker keep the models of the ``keep`` best ended trials, and of all trials of the Pareto front.

    Complete and pruned trials count, diverged ones do not; of two equal values the earlier trial is better.
    What is kept depends on which trials have ended, not on the order in which they did: a trial that others dominate
    never comes back to the front. The front has at most one trial for each cost, so one for each model of the space.

    Args:
        directory: The search's folder.
        keep: How many of the best; 0 keeps no model, those of the front neither.
        objective: Says which trials are better.
        fetch: Brings an ended trial's model into the folder, by the trial's number, before the tracker reads it there.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        directory: Path,
        keep: int,
        objective: Objective,
        fetch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._tracker = tracker
        self._folder = SearchFolder(root=directory)
        self._keep = keep
        self._objective = objective
        self._fetch = fetch
        self._values: dict[int, float] = {}  # of the kept trials
        self._costs: dict[int, float] = {}  # of those whose models have one

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of the kept trials, best first."""
        return tuple(self._objective.ranked(sorted(self._values), self._values.get))

    def restore(self, record: SearchRecord) -> None:
        """Makes the models right after a resume: keeps the best of the study, drops all others."""
        for trial in record.trials:
            if trial.result is not None:
                self._note(trial.number, trial.result, trial.measured.get(record.cost))
        self._forget_others()
        for trial in record.trials:
            if trial.number not in self._values and trial.state is not TrialState.RUNNING:
                self._tracker.drop_model(trial.number)
        for number in self.kept:
            self._tracker.keep_model(number, self._folder.best(number))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Keeps the trial if it is among the best or on the front now, and drops those that no longer are."""
        if outcome.result is None:
            return
        is_new = number not in self._values
        self._note(number, outcome.result, outcome.cost)
        for lost in self._forget_others():
            if lost != number or not is_new:
                self._tracker.drop_model(lost)
        if number in self._values and is_new:
            self._fetch(number)
            self._tracker.keep_model(number, self._folder.best(number))

    def _note(self, number: int, value: float, cost: float | None) -> None:
        self._values[number] = value
        if cost is not None:
            self._costs[number] = cost

    def _forget_others(self) -> list[int]:
        """Forgets the trials that are neither among the best nor on the front, and gives their numbers."""
        ranked = self.kept
        front = self._objective.front(ranked, self._values.get, self._costs.get) if self._keep else []
        lost = [number for number in ranked[self._keep :] if number not in front]
        for number in lost:
            del self._values[number]
            self._costs.pop(number, None)
        return lost


BEST_TRIAL = "best_trial"
COMPLETE = "trials_complete"  # in every SearchProgress

_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)  # shown even where there are none


class Progress:
    """Follows a search from its events, or takes up where its study stands."""

    def __init__(self, metric: str) -> None:
        self._objective = Objective.of(metric)
        self._running: set[int] = set()
        self._ended: dict[int, TrialState] = {}
        self._counts: Counter[TrialState] = Counter()  # of the ended trials
        self._values: dict[int, float] = {}
        self._partial: set[int] = set()  # stopped before their last fold
        self._best: list[int] = []  # one trial at most: of equal ones the earlier

    def trial_started(self, number: int) -> None:
        """A trial starts or goes on."""
        self._running.add(number)
        if number in self._ended:
            self._counts[self._ended.pop(number)] -= 1
        self._values.pop(number, None)
        self._partial.discard(number)
        if number in self._best:
            self._best = self._ranked(self._values)[:1]

    def trial_ended(self, number: int, outcome: TrialOutcome | TrialRecord, *, at: float) -> SearchProgress:
        """Where the search stands now that a trial has ended."""
        if number in self._ended:
            self.trial_started(number)
        self._running.discard(number)
        self._ended[number] = outcome.state
        self._counts[outcome.state] += 1
        if outcome.partial:
            self._partial.add(number)
        if outcome.result is not None:
            self._values[number] = outcome.result
            self._best = self._ranked([*self._best, number])[:1]
        return SearchProgress(ended=len(self._ended), metrics=self._metrics(), at=at)

    def restore(self, record: SearchRecord, *, now: float) -> list[SearchProgress]:
        """Where the search stood after each end of a trial, in order, as its study says."""
        self._running, self._ended, self._values, self._partial = set(), {}, {}, set()
        self._counts, self._best = Counter(), []
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
        shown = [state for state in TrialState if state in _COUNTED or self._counts[state]]
        metrics = {f"trials_{state.value}": float(self._counts[state]) for state in shown}
        metrics["trials_running"] = float(len(self._running))
        for best in self._best:
            metrics |= {f"best_{self._objective.metric}": self._values[best], BEST_TRIAL: float(best)}
        return metrics

    def _ranked(self, numbers: Iterable[int]) -> list[int]:
        return self._objective.ranked(sorted(numbers), self._values.get, last=self._partial.__contains__)


def _start(trial: TrialRecord, now: float) -> float:
    first = trial.reports[0].timestamp if trial.reports else now
    return first if trial.started is None else trial.started


def _end(trial: TrialRecord, now: float) -> float:
    last = trial.reports[-1].timestamp if trial.reports else now
    return last if trial.ended is None else trial.ended
