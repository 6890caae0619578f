"""What a search tries after its first points: known starting points or cheap points, then what a sampler proposes.

That is TPE or, until a hundred trials have begun, the point of the greatest expected gain.
Each proposal is a pure function of the trials that the study holds, of the search's seed and of the trial's number. No
configuration is proposed twice, whatever became of its trial: one that failed has had its retries, and one that was
infeasible will be so again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.codec import to_plain
from tlsearch.search.allocation import Allocation, alone
from tlsearch.search.experience import Experience
from tlsearch.search.first_points import FIRST_LOOK, ORIGIN, Origin, first_points, num_enqueued
from tlsearch.search.plan import SearchPlan
from tlsearch.search.sampler import NUM_DRAWN, GivenPoint, make_sampler
from tlsearch.search.seeds import derive_seed
from tlsearch.search.starting_points import RECIPES, recipe
from tlsearch.search.untried import Configurations, Untried, untried_point
from tlsearch.types import Scalar


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The sampler of one trial, and why its point is tried; None where the trial was enqueued, which says so."""

    sampler: BaseSampler
    origin: Origin | None = None


class Proposals:
    """Chooses the points that follow the first ones."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._experience = Experience(plan.setup.mode, views=plan.setup.cache.views)
        self._tried = Configurations()
        self._looks = [to_plain(plan.space.to_config(one.values)) for one in first_points(plan) if one.first_look]

    def propose(self, trials: Sequence[FrozenTrial], number: int) -> Proposal:
        """The proposal of trial ``number``, which is not among ``trials`` or has no values yet."""
        name = self._plan.search.sampler
        begun = [trial for trial in trials if trial.state is not OptunaState.WAITING and trial.number != number]
        if name == "fixed" or any(one.number == number and one.state is OptunaState.WAITING for one in trials):
            return Proposal(sampler=self._named(number, 0))
        tried = self._tried.of(begun)
        for origin, point in self._points(trials, begun, number) if name == "tpe" else ():
            if self._plan.space.to_config(point) not in tried:
                return Proposal(sampler=GivenPoint(point), origin=origin)
        rng = random.Random(derive_seed(self._plan.search.seed, "untried", number))
        drawn = Untried(self._plan.space, tried, lambda attempt: self._named(number, attempt), rng)
        return Proposal(sampler=drawn, origin="sampler")

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether every configuration of the space has been tried or is being tried."""
        return untried_point(self._plan.space, self._tried.of(trials), random.Random(0)) is None

    def _named(self, number: int, attempt: int) -> BaseSampler:
        search = self._plan.search
        return make_sampler(search.sampler, seed=search.seed, number=number, attempt=attempt)

    def _points(
        self, trials: Sequence[FrozenTrial], begun: Sequence[FrozenTrial], number: int
    ) -> list[tuple[Origin, Mapping[str, Scalar]]]:
        """What is tried before TPE or in its place, the first untried one; empty where TPE proposes."""
        search = self._plan.search
        found: list[tuple[Origin, Mapping[str, Scalar] | None]] = []
        found.append(("starting_point", self._recipe(trials, begun, number)))
        if search.by_gain:
            found.append(("sampler", self._best(begun, number)))
        elif search.cost_aware and not search.portfolio and len(begun) < NUM_DRAWN:
            early = self._allocation(begun).early_point(
                self._plan.space, begun, rng=self._rng(number), experience=self._experience
            )
            found.append(("sampler", early))
        return [(origin, point) for origin, point in found if point]

    def _recipe(
        self, trials: Sequence[FrozenTrial], begun: Sequence[FrozenTrial], number: int
    ) -> Mapping[str, Scalar] | None:
        """The next starting point; None where there is none left, or the space has no such depth.

        The first one is tried on the two backbones whose first looks were best, since heads alone do not always rank
        backbones as deeper trials do; the others on the backbone that is best so far.
        """
        looks = self._first_looks(begun)
        ranked = self._ranked(looks)
        second = len(ranked) > 1
        index = number - num_enqueued(trials, number)
        if not self._plan.search.portfolio or not 0 <= index < len(RECIPES) + second:
            return None
        if index <= second:
            backbone = (ranked or self._ranked(begun) or self._plan.space.backbones())[index]
            return recipe(self._plan.space, 0, backbone)
        # those that only some backbones have had would favour them
        equal = [trial for trial in begun if trial.user_attrs.get(ORIGIN) == "starting_point"]
        best = (self._ranked([*looks, *equal] if looks else begun) or self._plan.space.backbones())[0]
        return recipe(self._plan.space, index - second, best)

    def _first_looks(self, begun: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The first looks; where backbones were added later, the default of the first ones is their look."""
        if not any(trial.user_attrs.get(FIRST_LOOK) for trial in begun):
            return []
        return [
            trial
            for trial in begun
            if trial.user_attrs.get(FIRST_LOOK) or trial.user_attrs.get("config") in self._looks
        ]

    def _ranked(self, trials: Sequence[FrozenTrial]) -> list[str]:
        """The backbones that these trials have a value of, the best first; of equal ones the first listed."""
        sign = 1.0 if self._plan.setup.mode == "max" else -1.0
        scores: dict[str, float] = {}
        for trial in trials:
            if trial.intermediate_values and "config" in trial.user_attrs:
                values = list(trial.intermediate_values.values())
                if "best_value" in trial.user_attrs:  # of an ended trial: its solved head before the first step counts
                    values.append(trial.user_attrs["best_value"])
                score = max(sign * value for value in values)
                backbone = trial.user_attrs["config"]["backbone"]
                scores[backbone] = max(score, scores.get(backbone, score))
        return sorted((one for one in self._plan.space.backbones() if one in scores), key=lambda one: -scores[one])

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
