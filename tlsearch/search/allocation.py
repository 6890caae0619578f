"""Which point a search tries next: the one that promises the greatest gain, weighed against what it costs.

All of it is a pure function of the trials as the study holds them, of the search's seed and of the trial's number,
so that a resumed search goes on as the uninterrupted one would.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.search.costs import Costs, Kind
from tlsearch.search.drawing import Point, draw
from tlsearch.search.experience import Experience, Tried
from tlsearch.search.surrogate import Array, Surrogate
from tlsearch.types import Mode, Scalar

if TYPE_CHECKING:
    from tlsearch.space import Space

_NUM_RANDOM = 120
_NUM_NEAR = 60
_NUM_PARENTS = 5


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How the next point is chosen.

    Attributes:
        cooling: Power of the cost by which a gain is divided: 1 is gain per second, 0 ignores costs. Between them,
            because a search may have a budget of trials, too (cost-cooling: Lee et al., arXiv 2003.10870).
        start_s: Seconds that a trial costs beside its epochs.
        epochs: Epochs that a trial runs on average, with a scheduler that cuts.
        num_start: So many trials must have reported before the surrogate is asked.
        num_end: Once so many trials have begun it is asked no more: its cost grows with their cube, and TPE, whose cost
            does not, knows enough by then.
        num_early: While too little is known, where costs count, the cheapest of so many random points is tried (after
            the cost-effective initial design of the same paper).
        random_every: One in so many points is drawn at random, whatever the surrogate believes: it can be sure and
            wrong (interleaved as in SMAC: Hutter et al. 2011). 0 is never.
        measured: Whether costs are measured; else they are counted, and no clock decides anything.
        views: Fixed augmented views of the search.
    """

    cooling: float = 0.5
    start_s: float = 0.3
    epochs: float = 2.0
    num_start: int = 4
    num_end: int = 100
    num_early: int = 3
    random_every: int = 3
    measured: bool = True
    views: int = 1

    def point(
        self,
        space: Space,
        trials: Sequence[FrozenTrial],
        *,
        mode: Mode,
        max_epochs: int,
        rng: random.Random,
        experience: Experience | None = None,
    ) -> Mapping[str, Scalar] | None:
        """The values of the next trial, by the names that Optuna sees; None where the sampler is to propose them.

        Args:
            experience: What was read of the same study before; it saves time and changes nothing.
        """
        experience = experience or Experience(mode, views=self.views)
        tried = experience.read(trials)
        known = [one for one in tried if one.bests]
        if len(known) < self.num_start:
            return self.early_point(space, trials, rng=rng, experience=experience) if self.cooling else None
        if len(tried) >= self.num_end:
            return None
        parents = heapq.nlargest(_NUM_PARENTS, known, key=_reached)
        candidates = [draw(space, rng) for _ in range(_NUM_RANDOM)]
        candidates += [draw(space, rng, parents[index % len(parents)].point.values) for index in range(_NUM_NEAR)]
        candidates = _new(candidates, tried)
        if not candidates:
            return None
        if self.random_every and len(tried) % self.random_every == 0:
            return candidates[0].values
        gains = _gains(experience, tried, candidates, max_epochs)
        if self.cooling:
            gains = gains / self._costs(candidates, known) ** self.cooling
        return candidates[int(np.argmax(gains))].values

    def early_point(
        self, space: Space, trials: Sequence[FrozenTrial], *, rng: random.Random, experience: Experience
    ) -> Mapping[str, Scalar] | None:
        """The values of one of the first trials: what costs little is learned first. None where nothing new was drawn.

        They lean to the middle of the ranges, as TPE's prior does.

        Args:
            experience: What was read of the same study before; it saves time and changes nothing.
        """
        tried = experience.read(trials)
        points = _new([draw(space, rng, central=True) for _ in range(self.num_early)], tried)
        if not points:
            return None
        return points[int(np.argmin(self._costs(points, [one for one in tried if one.bests])))].values

    def _costs(self, points: Sequence[Point], known: Sequence[Tried]) -> Array:
        """What a trial at each point would cost, (M,), in seconds; counted costs are in passes."""
        costs = Costs((one.kind, one.seconds) for one in known) if self.measured else Costs(())
        kinds = [Kind.of(point.active, views=self.views) for point in points]
        return np.array([self.start_s + self.epochs * costs.of(kind) for kind in kinds])


def _new(points: Sequence[Point], tried: Sequence[Tried]) -> list[Point]:
    """Those that no trial has had."""
    done = {one.key for one in tried}
    return [point for point in points if frozenset(point.values.items()) not in done]


def _reached(one: Tried) -> float:
    """The best value of a trial that has reported."""
    return one.bests[-1]


def _gains(experience: Experience, tried: Sequence[Tried], candidates: Sequence[Point], max_epochs: int) -> Array:
    """By how much each candidate is expected to exceed the best so far, (M,)."""
    known = [one for one in tried if one.bests]
    failed = [one for one in tried if one.failed]
    running = [one for one in tried if not one.bests and not one.failed]
    values, noise = _forecast(known, max_epochs)
    values = np.concatenate([values, np.full(len(failed), values.min())])
    noise = np.concatenate([noise, np.zeros(len(failed))])
    encoder = experience.encoder([*(one.point for one in (*known, *failed, *running)), *candidates])
    surrogate = Surrogate(experience.coordinates([*known, *failed]), values, noise)
    if running:  # taken to reach what is expected of them, so that others are tried beside them
        surrogate = surrogate.believing(experience.coordinates(running))
    return surrogate.gain(encoder.encode(candidates), max(_reached(one) for one in known))


def _forecast(known: Sequence[Tried], max_epochs: int) -> tuple[Array, Array]:
    """What trials would reach at their last epoch, and the variance of that guess, (N,) each.

    A best value is carried on by what trials that went on have gained on average, epoch by epoch. Values far below
    the others (a loss that exploded) are lifted, or they would hide all other differences.
    """
    steps: list[tuple[float, float]] = []
    for epoch in range(1, max_epochs):
        gains = [one.bests[epoch] - one.bests[epoch - 1] for one in known if len(one.bests) > epoch]
        steps.append((float(np.mean(gains)), float(np.var(gains))) if gains else (0.0, 0.0))
    ahead = [  # by epochs done
        (sum(gain for gain, _ in steps[epoch:]), sum(variance for _, variance in steps[epoch:]))
        for epoch in range(max_epochs)
    ]
    done = [min(len(one.bests), max_epochs) - 1 for one in known]
    values = np.array([_reached(one) + ahead[epoch][0] for one, epoch in zip(known, done, strict=True)])
    noise = np.array([ahead[epoch][1] for epoch in done], dtype=np.float64)
    middle = float(np.median(values))
    return np.maximum(values, middle - 2 * (float(values.max()) - middle)), noise


def alone(allocation: Allocation, trials: Sequence[FrozenTrial]) -> Allocation:
    """Counts costs where no other trial runs: a search that runs one at a time repeats to the bit."""
    if any(trial.state is OptunaState.RUNNING for trial in trials):
        return allocation
    return replace(allocation, measured=False)
