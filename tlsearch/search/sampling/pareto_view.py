"""A search with two objectives as a sampler for one of them sees it: each trial has one value, its place.

Trials are ordered by ``pareto_order``, as at the rungs of such a search. TPE's good group is then made of the first
fronts, as in MOTPE (Ozaki et al., "Multiobjective Tree-Structured Parzen Estimator", JAIR 2022), and its rules for
trials that were stopped hold as before: Optuna's own study with several directions can stop none.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tlsearch.core.pareto import Point, pareto_order
from tlsearch.core.types import Objective
from tlsearch.search.sampling.tpe import Windowed, violates


def cost_of(trial: FrozenTrial, name: str) -> float:
    """What a trial's model costs by the objective of that name; 0 where no cost is known, as in a forecast."""
    return float(trial.user_attrs.get("measured", {}).get(name, 0.0))


class ParetoView(Windowed):
    """Has a sampler propose from places in place of values.

    Args:
        objective: The study's own.
        cost: The name of the other one.
    """

    def __init__(self, sampler: BaseSampler, *, objective: Objective, cost: str) -> None:
        super().__init__(sampler, lambda trials, _: self._placed(trials))
        self._objective, self._cost = objective, cost

    def _placed(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The trials with their places among those that ran as far; others, which no value ranks, as they are."""
        groups: dict[tuple[TrialState, int], list[FrozenTrial]] = {}
        for trial in trials:
            if trial.state is not TrialState.RUNNING and trial.intermediate_values and not violates(trial):
                last = 0 if trial.state is TrialState.COMPLETE else max(trial.intermediate_values)
                groups.setdefault((trial.state, last), []).append(trial)
        placed: dict[int, FrozenTrial] = {}
        for group in groups.values():
            for place, index in enumerate(pareto_order([self._point(trial) for trial in group])):
                placed[group[index].number] = _with_value(group[index], self._objective.gain(-float(place)))
        return [placed.get(trial.number, trial) for trial in trials]

    def _point(self, trial: FrozenTrial) -> Point:
        value = _value(trial)
        return self._objective.gain(value), Objective.of(self._cost).gain(cost_of(trial, self._cost))


def _value(trial: FrozenTrial) -> float:
    """What TPE ranks a trial by: its value, or the last one reported where it was stopped."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)]


def _with_value(trial: FrozenTrial, value: float) -> FrozenTrial:
    copied = copy.copy(trial)
    if trial.state is TrialState.COMPLETE:
        copied.value = value
    else:
        copied.intermediate_values = {max(trial.intermediate_values): value}
    return copied
