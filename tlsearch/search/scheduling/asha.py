"""Asynchronous successive halving over epochs, the stopping kind, as a pure function of the reports.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020). A bracket's rungs
lie at the epochs grace_period * reduction_factor^k below max_epochs. A trial that reaches a rung
enters its best value so far and goes on if it is among the best 1/reduction_factor (rounded up)
of all that have reached the rung, itself included; of equal ones as many as are among these, the first
ones first. A head alone is compared with heads alone. A deeper trial has two ways on: among all trials, or among the
deeper ones, since a head that starts solved is near its best after an epoch and would cut deeper trials that pass it
later (docs/search_quality.md). What happens depends on ranks and on the order of reports alone, so the same reports
give the same decisions after any restart.

With a cost as a second objective trials are compared by both: MO-ASHA, the stopping kind (Schmucker et al.,
"Multi-objective Asynchronous Successive Halving", arXiv 2106.12639).
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tlsearch.config import AshaSpec
from tlsearch.core.pareto import Point, pareto_order
from tlsearch.core.types import Objective
from tlsearch.search.seeds import derive_fraction

_Rung = tuple[Literal["heads", "deeper", "all"], int, int]  # whose, bracket, epoch


@dataclass(frozen=True, kw_only=True)
class AshaRules(AshaSpec):
    """The rungs of a search: bracket s has its first one at grace_period * reduction_factor^s.

    Attributes:
        max_epochs: Epochs of a whole trial; no rung lies there.
    """

    max_epochs: int

    def milestones(self, bracket: int) -> tuple[int, ...]:
        """The epochs of a bracket's rungs, rising."""
        epochs = []
        epoch = self.grace_period * self.reduction_factor**bracket
        while epoch < self.max_epochs:
            epochs.append(epoch)
            epoch *= self.reduction_factor
        return tuple(epochs)

    def bracket_of(self, *, seed: int, number: int) -> int:
        """The bracket of a trial: s is reduction_factor times rarer than s - 1; stored at the ask."""
        if self.brackets <= 1:
            return 0
        weights = [self.reduction_factor**-bracket for bracket in range(self.brackets)]
        point = derive_fraction(seed, "bracket", number) * sum(weights)
        for bracket, weight in enumerate(weights):
            point -= weight
            if point < 0:
                return bracket
        return self.brackets - 1


class Rungs:
    """What trials entered, by bracket and milestone, of each kind and of all; fed in the stored order of reports."""

    def __init__(self, rules: AshaRules, objective: Objective, cost: Objective | None = None) -> None:
        self._rules = rules
        self._objective, self._cost = objective, cost
        self._gains: dict[_Rung, list[float]] = {}  # rising
        self._gone_on: Counter[tuple[_Rung, float]] = Counter()  # by rung and gain
        self._points: dict[_Rung, list[Point]] = {}  # with a cost, in the order of entry

    def enter(self, *, bracket: int, epoch: int, best: float, cost: float = 0.0, head_only: bool = False) -> bool:
        """Enters a trial that has ended ``epoch``, once, where a rung lies there; True if it goes on.

        Args:
            bracket: The trial's bracket, from 0.
            epoch: The epoch reported.
            best: The trial's best value up to that epoch.
            cost: What its model costs, where the search looks at it.
            head_only: Whether it trains the head alone.
        """
        if epoch not in self._rules.milestones(bracket):
            return True
        of_its_kind = self._is_ahead(("heads" if head_only else "deeper", bracket, epoch), best, cost)
        of_all = self._is_ahead(("all", bracket, epoch), best, cost)
        return of_its_kind or (of_all and not head_only)

    def _is_ahead(self, key: _Rung, best: float, cost: float) -> bool:
        gain = self._objective.gain(best)
        return self._is_good(key, gain) if self._cost is None else self._is_in_front(key, (gain, self._cost.gain(cost)))

    def _is_good(self, key: _Rung, gain: float) -> bool:
        rung = self._gains.setdefault(key, [])
        better = len(rung) - bisect_right(rung, gain)
        insort(rung, gain)
        goes_on = better + self._gone_on[key, gain] < self._most(rung)
        self._gone_on[key, gain] += goes_on
        return goes_on

    def _is_in_front(self, key: _Rung, point: Point) -> bool:
        """By the order of ``pareto_order``; takes O(n log n) of the n trials there."""
        rung = self._points.setdefault(key, [])
        rung.append(point)
        return len(rung) - 1 in pareto_order(rung)[: self._most(rung)]

    def _most(self, rung: Sequence[object]) -> int:
        """How many of the trials at a rung are to go on."""
        return math.ceil(len(rung) / self._rules.reduction_factor)
