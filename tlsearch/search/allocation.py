"""Which point a search tries next: the one that promises the greatest gain, weighed against what it costs.

All of it is a pure function of the trials as the study holds them, of the search's seed and of the trial's number,
so that a resumed search goes on as the uninterrupted one would.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.search.costs import Costs, Kind
from tlsearch.search.drawing import Point, draw
from tlsearch.search.surrogate import Array, Encoder, Surrogate, expected_gain
from tlsearch.types import Mode, Scalar

if TYPE_CHECKING:
    from tlsearch.space import Space

_REPORT = "report:"
_NUM_RANDOM = 120
_NUM_NEAR = 60
_NUM_PARENTS = 5
_MAX_KNOWN = 200  # trials that the surrogate learns from: its cost grows with their cube


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """How the next point is chosen.

    Attributes:
        cooling: Power of the cost by which a gain is divided: 1 is gain per second, 0 ignores costs. Between them,
            because a search may have a budget of trials, too (cost-cooling: Lee et al., arXiv 2003.10870).
        start_s: Seconds that a trial costs beside its epochs.
        epochs: Epochs that a trial runs on average, with a scheduler that cuts.
        num_start: So many trials must have reported before the surrogate is asked.
        measured: Whether costs are measured; else they are counted, and no clock decides anything.
        views: Fixed augmented views of the search.
    """

    cooling: float = 0.5
    start_s: float = 0.3
    epochs: float = 2.0
    num_start: int = 4
    measured: bool = True
    views: int = 1

    def point(
        self, space: Space, trials: Sequence[FrozenTrial], *, mode: Mode, max_epochs: int, rng: random.Random
    ) -> Mapping[str, Scalar] | None:
        """The values of the next trial, by the names that Optuna sees; None where too little is known yet."""
        tried = [one for one in (_tried(trial, mode, self.views) for trial in trials) if one is not None]
        known = [one for one in tried if one.bests]
        if len(known) < self.num_start:
            return None
        best = max(one.bests[-1] for one in known)
        parents = sorted(known, key=lambda one: -one.bests[-1])[:_NUM_PARENTS]
        candidates = [draw(space, rng) for _ in range(_NUM_RANDOM)]
        candidates += [draw(space, rng, parents[index % len(parents)].point.values) for index in range(_NUM_NEAR)]
        done = {frozenset(one.point.values.items()) for one in tried}
        candidates = [candidate for candidate in candidates if frozenset(candidate.values.items()) not in done]
        if not candidates:
            return None
        mean, deviation = _predict(tried, candidates, max_epochs)
        costs = Costs((one.kind, one.seconds) for one in known) if self.measured else Costs(())
        kinds = [Kind.of(candidate.active, views=self.views) for candidate in candidates]
        seconds = np.array([self.start_s + self.epochs * costs.of(kind) for kind in kinds])
        gains = expected_gain(mean, deviation, best) / seconds**self.cooling
        return candidates[int(np.argmax(gains))].values


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """A trial: best value up to each epoch, higher is better, and the seconds of each; ``failed`` has no model."""

    number: int
    point: Point
    kind: Kind
    bests: tuple[float, ...]
    seconds: tuple[float, ...]
    failed: bool


def _tried(trial: FrozenTrial, mode: Mode, views: int) -> _Tried | None:
    """None for a trial that says nothing: waiting, without a proposal, failed by a bug, or outside the space."""
    if trial.state in (OptunaState.WAITING, OptunaState.FAIL) or "config" not in trial.user_attrs or not trial.params:
        return None
    bests: list[float] = []
    sign = 1.0 if mode == "max" else -1.0
    for epoch in sorted(trial.intermediate_values):
        value = sign * trial.intermediate_values[epoch]
        bests.append(max(value, bests[-1]) if bests else value)
    reports = (trial.user_attrs.get(f"{_REPORT}{epoch}") for epoch in sorted(trial.intermediate_values))
    seconds = tuple(float(one["metrics"].get("epoch_seconds", 0.0)) for one in reports if one)
    infeasible = any(value > 0 for value in trial.constraints.values())
    return _Tried(
        number=trial.number,
        point=Point(values=trial.params, domains=trial.distributions),
        kind=Kind.of(trial.user_attrs["config"], views=views),
        bests=() if infeasible else tuple(bests),
        seconds=seconds,
        failed=infeasible,
    )


def _predict(tried: Sequence[_Tried], candidates: Sequence[Point], max_epochs: int) -> tuple[Array, Array]:
    """Mean and standard deviation of what the candidates reach, (M,)."""
    known = _telling([one for one in tried if one.bests])
    values, noise = _forecast(known, max_epochs)
    failed = [one for one in tried if one.failed][-_MAX_KNOWN // 4 :]
    running = [one for one in tried if not one.bests and not one.failed]
    points = [one.point for one in (*known, *failed)]
    values = np.concatenate([values, np.full(len(failed), values.min())])
    noise = np.concatenate([noise, np.zeros(len(failed))])
    encoder = Encoder([*points, *(one.point for one in running), *candidates])
    surrogate = Surrogate(encoder.encode(points), values, noise)
    if running:  # taken to reach what is expected of them, so that others are tried beside them
        blank = [one.point for one in running]
        expected, _ = surrogate.predict(encoder.encode(blank))
        points, noise = points + blank, np.concatenate([noise, np.zeros(len(blank))])
        surrogate = Surrogate(encoder.encode(points), np.concatenate([values, expected]), noise)
    return surrogate.predict(encoder.encode(candidates))


def _telling(known: list[_Tried]) -> list[_Tried]:
    """All, or the best half and the newest of the rest where they are too many."""
    if len(known) <= _MAX_KNOWN:
        return known
    ranked = sorted(known, key=lambda one: -one.bests[-1])
    kept = {one.number for one in ranked[: _MAX_KNOWN // 2]}
    rest = [one.number for one in known if one.number not in kept]
    kept |= set(rest[-_MAX_KNOWN // 2 :])
    return [one for one in known if one.number in kept]


def _forecast(known: Sequence[_Tried], max_epochs: int) -> tuple[Array, Array]:
    """What trials would reach at their last epoch, and the variance of that guess, (N,) each.

    A best value is carried on by what trials that went on have gained on average, epoch by epoch. Values far below
    the others (a loss that exploded) are lifted, or they would hide all other differences.
    """
    steps: list[tuple[float, float]] = []
    for epoch in range(1, max_epochs):
        gains = [one.bests[epoch] - one.bests[epoch - 1] for one in known if len(one.bests) > epoch]
        steps.append((float(np.mean(gains)), float(np.var(gains))) if gains else (0.0, 0.0))
    ahead = [steps[len(one.bests) - 1 :] for one in known]
    values = np.array([one.bests[-1] + sum(gain for gain, _ in rest) for one, rest in zip(known, ahead, strict=True)])
    noise = np.array([sum(variance for _, variance in rest) for rest in ahead])
    middle = float(np.median(values))
    return np.maximum(values, middle - 2 * (float(values.max()) - middle)), noise


def alone(allocation: Allocation, trials: Sequence[FrozenTrial]) -> Allocation:
    """Counts costs where no other trial runs: a search that runs one at a time repeats to the bit."""
    if any(trial.state is OptunaState.RUNNING for trial in trials):
        return allocation
    return replace(allocation, measured=False)
