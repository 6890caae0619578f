"""ASHA that pauses and promotes, over the project's own controller and proposals; the product stops trials for good.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020), algorithm 2: a trial that has reached a
rung pauses, unless it is among the best 1/reduction_factor (rounded down) of the rung. Before a new trial is proposed,
a paused one that has come to be among them goes on, those of the highest rung first. It goes on from its
checkpoint: the epochs that it has run are not charged again, its start is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.types import Decision, EndReason, EpochReport
from tlsearch.forecast.simulation import ControllerSearcher, Start
from tlsearch.search import SearchPlan
from tlsearch.search.scheduling.stopping_rules import Judge, Observation, Verdict

RESUME_S = 0.002  # what handing a paused trial out again costs the driver

Rule = Literal["promotion", "stopping and revival"]


class _Pauses(Judge):
    """Ends a trial, as the controller sees it, where it pauses."""

    def __init__(self, plan: SearchPlan, rungs: Rungs) -> None:
        super().__init__(replace(plan.rules, asha=None))
        self._paused_by = rungs

    def observe(self, seen: Observation) -> Verdict:
        """The answer to a report of a trial that has never paused."""
        verdict = super().observe(seen)
        best = self.trained(seen.trial)
        assert best is not None
        if verdict.decision is not Decision.CONTINUE:
            return verdict
        if self._paused_by.enter(seen.trial, seen.epoch, best.value) or seen.uncut:
            return verdict
        return Verdict(decision=Decision.STOP, reason=EndReason.ASHA)


class Rungs:
    """The values of the trials at each rung, and which of them have gone on from it; the others are paused there."""

    def __init__(self, epochs: tuple[int, ...], factor: int, *, rule: Rule, sign: float) -> None:
        self._factor, self._sign = factor, sign
        self._round = math.floor if rule == "promotion" else math.ceil
        self._values: dict[int, dict[int, float]] = {epoch: {} for epoch in epochs}
        self._gone_on: dict[int, set[int]] = {epoch: set() for epoch in epochs}

    def enter(self, trial: int, epoch: int, value: float) -> bool:
        """Enters a trial where a rung lies; True if it goes on at once."""
        if epoch not in self._values:
            return True
        rung = self._values[epoch]
        rung[trial] = self._sign * value
        better = sum(other > rung[trial] for other in rung.values())
        if better < self._round(len(rung) / self._factor):
            self._gone_on[epoch].add(trial)
            return True
        return False

    def promotable(self, paused: set[int]) -> tuple[int, int] | None:
        """The paused trial that is to go on, and its epochs; None where none is among the best of its rung."""
        for epoch in sorted(self._values, reverse=True):
            rung = self._values[epoch]
            best = sorted(rung, key=lambda trial: -rung[trial])[: len(rung) // self._factor]
            for trial in best:
                if trial in paused and trial not in self._gone_on[epoch]:
                    self._gone_on[epoch].add(trial)
                    return trial, epoch
        return None


class PromotionSearcher(ControllerSearcher):
    """The project's search with other rules at the rungs.

    With ``promotion`` a trial goes on only once enough others have reached its rung. With ``stopping and revival`` it
    is stopped as the product stops it, and goes on once it has come to be among the best of its rung.
    """

    def __init__(self, plan: SearchPlan, rule: Rule) -> None:
        super().__init__(plan)
        asha = plan.rules.asha
        assert asha is not None and asha.brackets == 1
        sign = 1.0 if plan.setup.objective.better(1.0, 0.0) else -1.0
        self._rungs = Rungs(asha.milestones(0), asha.reduction_factor, rule=rule, sign=sign)
        self._plan, self._better = plan, max if sign > 0 else min
        self.controller._judge = _Pauses(plan, self._rungs)
        self._starts: dict[int, Start] = {}
        self._paused: set[int] = set()
        self._again: set[int] = set()  # trials that have paused and run now; the controller takes them for ended

    def next(self, now: float) -> Start | None:
        """A paused trial, else the controller's next one."""
        self.now = now
        if not self.controller.waiting and (found := self._rungs.promotable(self._paused)):
            number, epochs = found
            self._paused.discard(number)
            self._again.add(number)
            return replace(self._starts[number], epochs_done=epochs, suggest_s=RESUME_S)
        start = super().next(now)
        if start is not None:
            self._starts[start.number] = start
        return start

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """The controller's answer, or for a trial that has paused before that of the rungs."""
        if number not in self._again:
            goes_on = super().report(number, report, now)
        else:
            goes_on = self._go_on(self._stored(number), report)
        if not goes_on:
            self._again.discard(number)
            if report.epoch < self._plan.setup.max_epochs:
                self._paused.add(number)
        return goes_on

    def diverged(self, number: int, now: float) -> None:
        """The trial is out; one that has paused before keeps its best value."""
        if number in self._again:
            self._again.discard(number)
        else:
            super().diverged(number, now)

    def _stored(self, number: int) -> FrozenTrial:
        return self.controller._study.trial(number)

    def _go_on(self, trial: FrozenTrial, report: EpochReport) -> bool:
        """Writes the report into the study in memory, so that the sampler sees it, and enters the rung."""
        trial.intermediate_values[report.epoch] = report.metrics[self._plan.setup.metric]
        best = self._better(trial.intermediate_values.values())
        if report.epoch >= self._plan.setup.max_epochs:
            trial.state, trial.values = OptunaState.COMPLETE, [best]
            return False
        return self._rungs.enter(trial.number, report.epoch, best)
