"""What a search tries next, in order: the user's points, the default, the portfolio or cheap points, then the others.

Those are TPE's or, until a hundred trials have begun, the ones of the greatest expected gain.
Each proposal is a pure function of the trials that the study holds, of the search's seed and of the trial's number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.search.allocation import Allocation, alone
from tlsearch.search.experience import Experience
from tlsearch.search.plan import SearchPlan
from tlsearch.search.portfolio import RECIPES, probes, recipe
from tlsearch.search.sampler import NUM_DRAWN, GivenPoint, make_sampler
from tlsearch.search.seeds import derive_seed
from tlsearch.types import Scalar


def first_points(plan: SearchPlan) -> list[dict[str, Scalar]]:
    """The points that are enqueued before the first trial, by the names that Optuna sees."""
    space, search = plan.space, plan.search
    if search.sampler == "fixed":
        return [space.complete(entry) for entry in search.start_with] * search.seeds
    points = space.starting_points(search.start_with)
    early = probes(space) if search.probe_first else []
    return points + [point for point in early if point not in points]


class Proposals:
    """Chooses the points that follow the first ones."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._num_first = len(first_points(plan))
        self._experience = Experience(plan.setup.mode, views=plan.setup.cache.views)

    def sampler(self, trials: Sequence[FrozenTrial], number: int) -> BaseSampler:
        """The sampler of trial ``number``, which is not among ``trials`` or has no values yet."""
        search = self._plan.search
        begun = [trial for trial in trials if trial.state is not OptunaState.WAITING and trial.number != number]
        waits = any(trial.number == number and trial.state is OptunaState.WAITING for trial in trials)
        point = None if waits or search.sampler != "tpe" else self._point(begun, number)
        if point is not None:
            return GivenPoint(point)
        return make_sampler(search.sampler, seed=search.seed, number=number)

    def _point(self, begun: Sequence[FrozenTrial], number: int) -> Mapping[str, Scalar] | None:
        """What is tried before TPE or in its place; None where TPE proposes."""
        search = self._plan.search
        if point := self._recipe(begun, number):
            return point
        if search.by_gain:
            return self._best(begun, number)
        if search.cost_aware and not search.portfolio and len(begun) < NUM_DRAWN:
            return self._allocation(begun).early_point(
                self._plan.space, begun, rng=self._rng(number), experience=self._experience
            )
        return None

    def _recipe(self, begun: Sequence[FrozenTrial], number: int) -> Mapping[str, Scalar] | None:
        """The portfolio's next recipe on the backbone that is best so far, unless that was tried."""
        index = number - self._num_first
        if not self._plan.search.portfolio or not 0 <= index < len(RECIPES):
            return None
        point = recipe(self._plan.space, index, self._best_backbone(begun))
        return None if point is None or any(trial.params == point for trial in begun) else point

    def _best_backbone(self, begun: Sequence[FrozenTrial]) -> str:
        sign = 1.0 if self._plan.setup.mode == "max" else -1.0
        scores: dict[str, float] = {}
        for trial in begun:
            if trial.intermediate_values and "config" in trial.user_attrs:
                score = max(sign * value for value in trial.intermediate_values.values())
                backbone = trial.user_attrs["config"]["backbone"]
                scores[backbone] = max(score, scores.get(backbone, score))
        inside = {one: scores[one] for one in self._plan.space.backbones() if one in scores}
        return max(inside, key=lambda one: inside[one]) if inside else self._plan.space.backbones()[0]

    def _best(self, begun: Sequence[FrozenTrial], number: int) -> Mapping[str, Scalar] | None:
        """The point of the greatest expected gain, for what it costs where the search is cost-aware."""
        plan = self._plan
        return self._allocation(begun).point(
            plan.space,
            begun,
            mode=plan.setup.mode,
            max_epochs=plan.setup.max_epochs,
            rng=self._rng(number),
            experience=self._experience,
        )

    def _allocation(self, begun: Sequence[FrozenTrial]) -> Allocation:
        plan = self._plan
        allocation = alone(plan.allocation, begun) if plan.search.cost_aware else replace(plan.allocation, cooling=0.0)
        return replace(allocation, views=plan.setup.cache.views)

    def _rng(self, number: int) -> random.Random:
        return random.Random(derive_seed(self._plan.search.seed, "allocation", number))
