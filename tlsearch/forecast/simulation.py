"""A search on a virtual clock: its own controller, its slots, and trials that take only the seconds they are given.

Everything that takes time is charged: a trial's opening, every epoch, and every proposal of the sampler, during which
the driver does nothing else. What its answers to reports cost is charged where the caller measures it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tlsearch.core.types import EndReason, EpochReport, SearchObserver, TrialConfig, TrialOutcome
from tlsearch.search.controller.controller import Controller
from tlsearch.search.plan import SearchPlan
from tlsearch.search.study.storage import open_in_memory
from tlsearch.search.study.study import Study

HANDOUT_S = 0.3  # what Ray takes to hand a trial to a warm worker and to hear its end (docs/search_quality.md)
# What a proposal costs the driver, in CPU seconds of a slow core, among 150 trials; rounded up.
PROPOSAL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Start:
    """A trial that begins, or goes on after ``epochs_done``; ``suggest_s`` is what its proposal cost the driver."""

    number: int
    config: TrialConfig
    seed: int
    suggest_s: float = PROPOSAL_S
    epochs_done: int = 0


class Searcher(Protocol):
    """A search as the simulation drives it; ``now`` are seconds since it began."""

    def next(self, now: float) -> Start | None:
        """The next trial; None where none is to start now."""
        ...

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """Takes an epoch's report; True if the trial goes on."""
        ...

    def diverged(self, number: int, now: float) -> None:
        """The trial's loss was not finite."""
        ...


class SimulatedTrial(Protocol):
    """What a trial takes and reports."""

    def opened(self, now: float) -> float:
        """When a trial that opens at ``now`` begins its first epoch."""
        ...

    def epoch_end(self, epoch: int, now: float) -> float:
        """When an epoch that begins at ``now`` ends."""
        ...

    def report(self, epoch: int, now: float) -> EpochReport | None:
        """The epoch's report; None where it diverged."""
        ...


class ControllerSearcher:
    """The project's own controller, over a study in memory unless one is given."""

    def __init__(
        self, plan: SearchPlan, study: Study | None = None, *, observers: Sequence[SearchObserver] = ()
    ) -> None:
        self.now = 0.0
        self.study = study or open_in_memory(plan.setup.objective)
        self.controller = Controller(
            plan, self.study, observers=observers, clock=lambda: self.now, timer=lambda: self.now
        )

    def next(self, now: float) -> Start | None:
        """The controller's next trial."""
        self.now = now
        job = self.controller.next_trial()
        if job is None:
            return None
        one = job.assignment
        return Start(number=one.number, config=one.config, seed=one.seed, epochs_done=job.reported)

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """The controller's answer."""
        self.now = now
        return self.controller.report(number, report)

    def diverged(self, number: int, now: float) -> None:
        """As a worker reports it."""
        self.now = now
        self.controller.fail(number, TrialOutcome(reason=EndReason.DIVERGED, error="the loss is nan"))


@dataclass(kw_only=True)
class Ran:
    """One trial as it ran; ``ended_s`` is infinite where the horizon came first."""

    number: int
    config: TrialConfig
    began_s: float
    epochs: int = 0
    busy_s: float = 0.0
    ended_s: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A search as it ran.

    Attributes:
        trials: By number, in the order in which they began.
        end_s: When the last report came.
        suggest_s: Seconds that the driver spent on proposals.
        reports: (when, trial, report), in order; empty where they are not kept.
        lags_s: From each report to the driver's answer, in order.
    """

    trials: dict[int, Ran] = field(default_factory=dict)
    end_s: float = 0.0
    suggest_s: float = 0.0
    reports: tuple[tuple[float, int, EpochReport], ...] = ()
    lags_s: tuple[float, ...] = ()


def simulate(
    searcher: Searcher,
    trial_of: Callable[[Start], SimulatedTrial],
    *,
    slots: int,
    horizon_s: float = math.inf,
    answer_s: Callable[[], float] | None = None,
    keep_reports: bool = True,
) -> Simulated:
    """Runs a search until no trial is live, or for ``horizon_s`` of virtual time.

    Args:
        answer_s: What the driver's last answer to a report cost it, in seconds. It then answers one report after the
            other, and the trial waits for it. None: it answers at once, whatever else it does.
        keep_reports: Whether all reports stay in memory.
    """
    run = _Run(searcher, trial_of, answer_s=answer_s, keep_reports=keep_reports)
    while run.now < horizon_s:
        while len(run.live) < slots and run.begin():
            pass
        if not run.queue or run.queue[0][0] >= horizon_s:
            break
        run.step()
    return Simulated(
        trials=run.trials,
        end_s=run.now,
        suggest_s=run.suggest_s,
        reports=tuple(run.reports),
        lags_s=tuple(run.lags_s),
    )


class _Run:
    """The state of one simulation."""

    def __init__(
        self,
        searcher: Searcher,
        trial_of: Callable[[Start], SimulatedTrial],
        *,
        answer_s: Callable[[], float] | None,
        keep_reports: bool,
    ) -> None:
        self._searcher, self._trial_of = searcher, trial_of
        self._answer_s, self._keep_reports = answer_s, keep_reports
        self.queue: list[tuple[float, int, int]] = []  # when, in the order of their making, which trial
        self.live: dict[int, SimulatedTrial] = {}
        self.trials: dict[int, Ran] = {}
        self.reports: list[tuple[float, int, EpochReport]] = []
        self.lags_s: list[float] = []
        self.now = self.suggest_s = self._driver_free = 0.0
        self._order = 0

    def begin(self) -> bool:
        """Begins the next trial, if there is one now."""
        start = self._searcher.next(self.now)
        if start is None:
            return False
        self._driver_free = max(self._driver_free, self.now) + start.suggest_s
        self.suggest_s += start.suggest_s
        trial = self.live[start.number] = self._trial_of(start)
        ran = Ran(number=start.number, config=start.config, began_s=self._driver_free, epochs=start.epochs_done)
        ran = self.trials.setdefault(start.number, ran)
        opened = trial.opened(self._driver_free)
        ran.busy_s += opened - self._driver_free
        self._go_on(start.number, opened)
        return True

    def step(self) -> None:
        """The next epoch that ends is reported."""
        self.now, _, number = heapq.heappop(self.queue)
        ran = self.trials[number]
        report = self.live[number].report(ran.epochs + 1, self.now)
        goes_on = False
        if report is None:
            self._searcher.diverged(number, self.now)
        else:
            ran.epochs += 1
            if self._keep_reports:
                self.reports.append((self.now, number, report))
            goes_on = self._searcher.report(number, report, self.now)
        answered = self._answered()
        if goes_on:
            self._go_on(number, answered)
        else:
            ran.ended_s = self.now
            del self.live[number]

    def _answered(self) -> float:
        """When the driver has answered the report that came now."""
        if self._answer_s is None:
            return self.now
        self._driver_free = max(self._driver_free, self.now) + self._answer_s()
        self.lags_s.append(self._driver_free - self.now)
        return self._driver_free

    def _go_on(self, number: int, now: float) -> None:
        ran = self.trials[number]
        end = self.live[number].epoch_end(ran.epochs + 1, now)
        ran.busy_s += end - now
        self._order += 1
        heapq.heappush(self.queue, (end, self._order, number))
