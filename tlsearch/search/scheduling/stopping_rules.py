"""What ends a trial or a search: the limit of epochs, ASHA, patience, the user's constraints, the time budget.

The rules for reports are pure: they read no clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tlsearch.core.metrics import COSTS
from tlsearch.core.types import Decision, EndReason, EpochReport, Objective, TrialConfig
from tlsearch.search.scheduling.asha import AshaRules, Rungs


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All that decides about a trial's reports.

    Attributes:
        cost: What rungs look at beside the objective; None: at that alone.
        max_epochs: A trial that has run this number, of epochs or of folds, is COMPLETE.
        asha: None: no trial is cut.
        patience: This number of epochs without a new best ends a trial as COMPLETE, not before its first
            rung: TPE ranks any COMPLETE trial above any PRUNED one. None: off.
    """

    objective: Objective
    max_epochs: int
    asha: AshaRules | None = None
    patience: int | None = None
    cost: Objective | None = None


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One report as the rules see it.

    Attributes:
        uncut: Whether it is of a trial that ASHA may not stop.
        start: The value before the first step, where the report of epoch 1 has one. It counts for the trial's best
            alone: all trials of a backbone share it, so rungs and patience look at the trained epochs.
        mean: Whether the value is a mean over folds, which replaces those over fewer.
        last: Whether the trial has nothing left to train; rungs do not compare it with those that have.
        cost: What the trial's model costs; 0 where the search does not look at it.
        head_only: Whether the trial trains the head alone; rungs compare such a trial with others of its kind alone.
    """

    trial: int
    bracket: int
    epoch: int
    value: float
    uncut: bool = False
    start: float | None = None
    mean: bool = False
    last: bool = False
    cost: float = 0.0
    head_only: bool = False

    @classmethod
    def of(
        cls,
        report: EpochReport,
        metric: str,
        config: TrialConfig,
        *,
        trial: int,
        bracket: int,
        uncut: bool,
        cost: float,
    ) -> Observation:
        """What the rules see of a trial's report."""
        start = None if report.start is None else report.start.metrics[metric]
        value = report.metrics[metric]
        return cls(
            trial=trial,
            bracket=bracket,
            epoch=report.epoch,
            value=value,
            uncut=uncut,
            start=start,
            mean=report.folds > 0,
            last=report.last,
            cost=cost,
            head_only=config.unfreeze_depth == 0,
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to a report; ``reason`` is empty where the trial goes on."""

    decision: Decision
    reason: str = ""


@dataclass(kw_only=True)
class Best:
    """A trial's best value so far and its epoch, 0 before the first step; the earlier epoch where equal.

    With folds, the mean over all so far and their number.
    """

    value: float
    epoch: int


class Judge:
    """Answers reports; its state is a function of the sequence of observations."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._rungs = Rungs(rules.asha, rules.objective, rules.cost) if rules.asha else None
        self._best: dict[int, Best] = {}  # of trained epochs
        self._starts: dict[int, Best] = {}

    def observe(self, seen: Observation) -> Verdict:
        """Takes one report and answers it."""
        if seen.start is not None:
            self._starts[seen.trial] = Best(value=seen.start, epoch=0)
        best = self._best.get(seen.trial)
        if best is None or seen.mean or self._rules.objective.better(seen.value, best.value):
            best = self._best[seen.trial] = Best(value=seen.value, epoch=seen.epoch)
        if seen.last or seen.epoch >= self._rules.max_epochs:
            return Verdict(decision=Decision.COMPLETE, reason=EndReason.COMPLETED)
        goes_on = self._rungs is None or self._rungs.enter(
            bracket=seen.bracket, epoch=seen.epoch, best=best.value, cost=seen.cost, head_only=seen.head_only
        )
        if not goes_on and not seen.uncut:  # it has entered the rung: others are measured by it
            return Verdict(decision=Decision.STOP, reason=EndReason.ASHA)
        if self._plateaued(seen, best):
            return Verdict(decision=Decision.COMPLETE, reason=EndReason.PLATEAUED)
        return Verdict(decision=Decision.CONTINUE)

    def best(self, trial: int) -> Best | None:
        """The trial's best so far, the model before the first step included; None before its first report."""
        start, trained = self._starts.get(trial), self._best.get(trial)
        if start is None or (trained is not None and self._rules.objective.better(trained.value, start.value)):
            return trained
        return start

    def trained(self, trial: int) -> Best | None:
        """The best of the trial's epochs; None before its first report."""
        return self._best.get(trial)

    def _plateaued(self, seen: Observation, best: Best) -> bool:
        if self._rules.patience is None or seen.epoch - best.epoch < self._rules.patience:
            return False
        milestones = self._rules.asha.milestones(seen.bracket) if self._rules.asha else ()
        return not milestones or seen.epoch >= milestones[0]


MEASURED_BY_WORKERS = ("latency_ms",)  # the others follow from the backbone alone


def excess(measured: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """By how much each limit is exceeded, as a share of it; 0 or less where it is kept.

    Shares, since TPE adds what is exceeded over all constraints.
    """
    return {name: measured[name] / limit - 1 for name, limit in limits.items() if name in measured}


def complaint(measured: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """Which limits are broken, in words; empty where all that is known keeps them."""
    return "; ".join(
        f"{measured[name]:.3g} {COSTS.get(name, name)}, at most {limits[name]:g} (search.constraints.{name})"
        for name, share in excess(measured, limits).items()
        if share > 0
    )


class TimeBudget:
    """Counts monotonic seconds from now on top of what earlier starts spent: a wrong clock changes nothing."""

    def __init__(
        self, limit_s: float | None, *, spent_s: float = 0.0, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._timer = timer
        self._origin = timer() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of all starts so far."""
        return self._timer() - self._origin

    @property
    def over(self) -> bool:
        """Whether the limit is reached; never without a limit."""
        return self._limit_s is not None and self.spent_s >= self._limit_s
