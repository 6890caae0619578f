"""What a search tries after its first points: known starting points or cheap points, then what a sampler proposes.

Each proposal is a pure function of the trials that the study holds, of the search's seed and of the trial's number. No
configuration is proposed twice, whatever became of its trial: one that failed has had its retries, and one that was
infeasible will be so again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.codec import from_plain
from tlsearch.core.types import Scalar, TrialConfig
from tlsearch.search.plan import SearchPlan
from tlsearch.search.sampling.pareto_view import ParetoView, cost_of
from tlsearch.search.sampling.points import FIRST_LOOK, ORIGIN, Origin, draw, first_points, nearest, num_proposed
from tlsearch.search.sampling.tpe import NUM_DRAWN, GivenPoint, make_sampler
from tlsearch.search.sampling.untried import Configurations, Untried, untried_point
from tlsearch.search.seeds import derive_seed
from tlsearch.space.image_sizes import own_size
from tlsearch.space.libraries.backbones import backbone_facts

if TYPE_CHECKING:
    from tlsearch.space import Space


# Points that complement each other: each one leaves the least regret of the best so far, as a mean over recorded curves
# of emoji and the digits (docs/search_quality.md). Sets far from photographs need batch norm that trains, and with it
# rates near 1e-3.
STARTING_POINTS: Sequence[Mapping[str, Scalar]] = (
    {
        "unfreeze_depth": 1,
        "head_lr": 1e-3,
        "backbone_lr": 1e-4,
        "backbone_lr_ratio": 0.1,
        "bn_policy": "train",
        "augmentation": "light",
    },
    {"unfreeze_depth": 2, "head_lr": 3e-3, "backbone_lr": 8e-4, "backbone_lr_ratio": 0.27, "bn_policy": "train"},
    {"unfreeze_depth": 5, "head_lr": 1e-3, "backbone_lr": 4e-4, "backbone_lr_ratio": 0.4, "bn_policy": "train"},
    {"unfreeze_depth": 5, "head_lr": 1e-3, "backbone_lr": 1e-4, "backbone_lr_ratio": 0.1, "bn_policy": "frozen"},
)

_LOWER = (
    0.1  # the rate where no batch norm takes up the change: a ViT keeps its features at 8e-5, and loses them at 8e-4
)


def starting_point(
    space: Space, index: int, backbone: str, image_size: int | None = None
) -> Mapping[str, Scalar] | None:
    """A starting point of a backbone, moved into the space; None where the space has no such depth.

    Args:
        image_size: Of the space; None: where trials of the backbone begin.
    """
    wanted = STARTING_POINTS[index]
    own = {} if image_size is None else {"image_size": image_size}
    try:
        base = space.complete({"backbone": backbone, "unfreeze_depth": wanted["unfreeze_depth"], **own})
    except ValueError:  # outside the space
        return None
    point = nearest(space, {**base, **wanted, "backbone": backbone})
    facts = backbone_facts(backbone)
    if facts is None or facts.has_batch_norm or space.to_config(point).adapt != "none":
        return point
    lower = {name: _LOWER * float(wanted[name] or 0) for name in ("backbone_lr", "backbone_lr_ratio")}
    return nearest(space, {**base, **wanted, **lower, "backbone": backbone})


_NUM_CHEAP = 3  # random points of which the cheapest is tried
# Fraction of a backbone's forward work in its trained stages, by unfreeze_depth: typical of torchvision's pyramids.
_TRAINED = (0.0, 0.15, 0.35, 0.6, 0.85, 1.0)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """The sampler of one trial, and why its point is tried; None where the trial was enqueued, which says so."""

    sampler: BaseSampler
    origin: Origin | None = None


class Proposals:
    """Chooses the points that follow the first ones."""

    def __init__(self, plan: SearchPlan) -> None:
        self._plan = plan
        self._tried = Configurations()
        self._looks = [plan.space.to_config(one.values) for one in first_points(plan) if one.first_look]

    def propose(self, trials: Sequence[FrozenTrial], number: int, *, looking: bool = False) -> Proposal:
        """The proposal of trial ``number``, which is not among ``trials`` or has no values yet.

        Args:
            looking: Whether a first look still runs. Then the point is a random one, which needs no knowledge of it.
        """
        begun = [trial for trial in trials if trial.state is not OptunaState.WAITING and trial.number != number]
        if self._plan.search.listed or _enqueued(trials, number):
            return Proposal(sampler=self._named(number, 0))
        tried = self._tried.of(begun)
        if looking:
            return Proposal(sampler=self._untried(tried, number, "random"), origin="free_slot")
        known = self._starting_point(trials, begun, number)
        if known is not None and self._plan.space.to_config(known) not in tried:
            return Proposal(sampler=GivenPoint(known), origin="starting_point")
        cheap = self._cheap_point(tried, number) if len(begun) < NUM_DRAWN else None
        if cheap is not None:
            return Proposal(sampler=GivenPoint(cheap), origin="sampler")
        name = "random" if self._at_random(number) else self._plan.search.sampler
        return Proposal(sampler=self._untried(tried, number, name), origin="sampler")

    def free_point_left(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether a slot that is free while first looks run may have a random point.

        At most half of the trials that the search has beside its first and starting points do. None where it has
        constraints, which a random point may break.
        """
        search = self._plan.search
        num_free = sum(trial.user_attrs.get(ORIGIN) == "free_slot" for trial in trials)
        known = len(STARTING_POINTS) + 1 if self._starts_known else 0
        others = len(trials) - num_free + known
        return not search.constraints.limits and 2 * (num_free + 1) <= search.trials - others

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether every configuration of the space has been tried or is being tried."""
        return untried_point(self._plan.space, self._tried.of(trials), random.Random(0)) is None

    @property
    def _starts_known(self) -> bool:
        """Whether the search has starting points."""
        return self._plan.search.applies("starting_points") and self._plan.search.starting_points == "auto"

    def _at_random(self, number: int) -> bool:
        """Whether this trial is drawn at random, as every other one of SMAC is (Hutter et al., LION 2011).

        Starting points are all of TPE's good group for long, and it looks no further. Not where a search has
        constraints: a random point may break them.
        """
        return self._starts_known and not self._plan.search.constraints.limits and number % 2 == 1

    def _untried(self, tried: Configurations, number: int, name: str) -> Untried:
        """What the sampler of this name proposes, of the configurations that no trial has had."""
        rng = random.Random(derive_seed(self._plan.search.seed, "untried", number))
        return Untried(self._plan.space, tried, lambda attempt: self._named(number, attempt, name), rng)

    def _named(self, number: int, attempt: int, name: str | None = None) -> BaseSampler:
        search = self._plan.search
        sampler = make_sampler(name or search.sampler, seed=search.seed, number=number, attempt=attempt)
        if not search.cost:
            return sampler
        return ParetoView(sampler, objective=self._plan.setup.objective, cost=search.cost)

    def _cheap_point(self, tried: Configurations, number: int) -> Mapping[str, Scalar] | None:
        """The cheapest of a few random points, so that what costs little is learned first.

        After the cost-effective initial design of Lee et al., arXiv 2003.10870. None where starting points take its
        place, or where nothing new was drawn.
        """
        search, space, views = self._plan.search, self._plan.space, self._plan.setup.cache.views
        if not (search.applies("cost_aware") and search.cost_aware and search.starting_points == "none"):
            return None
        rng = random.Random(derive_seed(search.seed, "cheap", number))
        points = [draw(space, rng, central=True) for _ in range(_NUM_CHEAP)]  # lean to the middle, as TPE's prior does
        new = [point for point in points if space.to_config(point) not in tried]
        return min(new, key=lambda point: _passes(space.to_config(point), views), default=None)

    def _starting_point(
        self, trials: Sequence[FrozenTrial], begun: Sequence[FrozenTrial], number: int
    ) -> Mapping[str, Scalar] | None:
        """The next starting point; None where there is none left, or the space has no such depth.

        The first one is tried on the two backbones whose first looks were best, since heads alone do not always rank
        backbones as deeper trials do; the others on the backbone that is best so far.
        """
        if not self._starts_known:
            return None
        index = num_proposed(trials, number, most=len(STARTING_POINTS))
        if index > len(STARTING_POINTS):  # past them a long search would look at all its trials
            return None
        if self._plan.search.cost:
            return self._on_front(begun, index)
        looks = self._first_looks(begun)
        ranked = self._ranked(looks)
        second = len(ranked) > 1
        if index >= len(STARTING_POINTS) + second:
            return None
        if index <= second:
            backbone = (ranked or self._ranked(begun) or self._plan.space.backbones())[index]
            return starting_point(self._plan.space, 0, backbone)
        # those that only some backbones have had would favour them
        equal = [trial for trial in begun if trial.user_attrs.get(ORIGIN) == "starting_point"]
        best = (self._ranked([*looks, *equal] if looks else begun) or self._plan.space.backbones())[0]
        return starting_point(self._plan.space, index - second, best)

    def _on_front(self, begun: Sequence[FrozenTrial], index: int) -> Mapping[str, Scalar] | None:
        """A starting point on a model of the front that was there before: they are spread over it, cheapest first."""
        search, objective = self._plan.search, self._plan.setup.objective
        earlier = [trial for trial in begun if trial.user_attrs.get(ORIGIN) not in ("free_slot", "starting_point")]
        front = objective.front(earlier, self._best_value, lambda trial: cost_of(trial, search.cost))
        if index >= len(STARTING_POINTS) or not front:
            return None
        config = front[index * len(front) // len(STARTING_POINTS)].user_attrs["config"]
        return starting_point(self._plan.space, index, config["backbone"], config.get("image_size"))

    def _first_looks(self, begun: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The first looks; where backbones were added later, the default of the first ones is their look."""
        if not any(trial.user_attrs.get(FIRST_LOOK) for trial in begun):
            return []
        return [trial for trial in begun if trial.user_attrs.get(FIRST_LOOK) or self._is_look(trial)]

    def _is_look(self, trial: FrozenTrial) -> bool:
        config = trial.user_attrs.get("config")
        return config is not None and from_plain(TrialConfig, config) in self._looks

    def _ranked(self, trials: Sequence[FrozenTrial]) -> list[str]:
        """The backbones that these trials have a value of, the best first; of equal ones the first listed."""
        gain = self._plan.setup.objective.gain
        scores: dict[str, float] = {}
        for trial in trials:
            value = self._best_value(trial)
            if value is not None:
                backbone = trial.user_attrs["config"]["backbone"]
                scores[backbone] = max(gain(value), scores.get(backbone, gain(value)))
        return sorted((one for one in self._plan.space.backbones() if one in scores), key=lambda one: -scores[one])

    def _best_value(self, trial: FrozenTrial) -> float | None:
        """The best value that the trial has reported; None where there is none yet."""
        if not trial.intermediate_values or "config" not in trial.user_attrs:
            return None
        values = list(trial.intermediate_values.values())
        if self._plan.setup.folds:
            values = values[-1:]  # the mean over the most folds
        if "best_value" in trial.user_attrs:  # of an ended trial: its solved head before the first step counts
            values.append(trial.user_attrs["best_value"])
        return max(values, key=self._plan.setup.objective.gain)


def _enqueued(trials: Sequence[FrozenTrial], number: int) -> bool:
    """Whether the trial has its point from the queue, also where a crash cut short its beginning.

    A study's trials are in the order of their numbers.
    """
    return number < len(trials) and "fixed_params" in trials[number].system_attrs


def _passes(config: TrialConfig, views: int) -> float:
    """An epoch's work, in forward passes over the backbone at the size of its weights.

    A training step is three, cached features save the rest.
    """
    fixed = config.augmentation == "none" or views > 1
    cached = fixed and not config.mixup and not config.cutmix
    trained = _TRAINED[min(config.unfreeze_depth, len(_TRAINED) - 1)]
    own = own_size(config.backbone)
    pixels = 1.0 if config.image_size is None or own is None else (config.image_size / own) ** 2
    return pixels * (3 * trained + (0.0 if cached else 1 - trained))
