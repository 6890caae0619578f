"""What a search has tried, as its proposals see it: a trial that has ended is parsed once, and never again.

What is kept follows from the ended trials alone, which never change, so proposals stay a pure function of the study.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.search.costs import Kind
from tlsearch.search.drawing import Point
from tlsearch.search.surrogate import Array, Encoder
from tlsearch.types import Mode

_REPORT = "report:"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trial: best value up to each epoch, higher is better, and the seconds of each; ``failed`` has no model."""

    number: int
    point: Point
    key: frozenset[object]
    kind: Kind
    bests: tuple[float, ...]
    seconds: tuple[float, ...]
    failed: bool
    ended: bool


class Experience:
    """Reads the trials of one study, again and again while it grows.

    Args:
        mode: The search's.
        views: Of the search's cache; what a trial costs depends on it.
    """

    def __init__(self, mode: Mode, *, views: int = 1) -> None:
        self._mode, self._views = mode, views
        self._ended: dict[int, Tried | None] = {}
        self._domains: Mapping[str, BaseDistribution] = {}
        self._encoder = Encoder({})
        self._rows: dict[int, list[float]] = {}  # of ended trials, as the encoder gives them

    def read(self, trials: Iterable[FrozenTrial]) -> list[Tried]:
        """Those that say something, in the order given."""
        found = []
        for trial in trials:
            number = trial.number
            if number in self._ended:
                one = self._ended[number]
            else:
                one = _tried(trial, self._mode, self._views)
                if trial.state.is_finished():
                    self._ended[number] = one
            if one is not None:
                found.append(one)
        return found

    def encoder(self, points: Iterable[Point]) -> Encoder:
        """An encoder of all dimensions that the points have; of two domains of one name the last counts."""
        domains: dict[str, BaseDistribution] = {}
        for point in points:
            domains.update(point.domains)
        if domains != self._domains:
            self._domains, self._encoder = domains, Encoder(domains)
            self._rows.clear()
        return self._encoder

    def coordinates(self, tried: Sequence[Tried]) -> Array:
        """Where trials lie, (N, D), by the encoder that was asked for last."""
        rows = []
        for one in tried:
            row = self._rows.get(one.number) if one.ended else None
            if row is None:
                row = self._encoder.row(one.point)
                if one.ended:
                    self._rows[one.number] = row
            rows.append(row)
        return np.array(rows)


def _tried(trial: FrozenTrial, mode: Mode, views: int) -> Tried | None:
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
    return Tried(
        number=trial.number,
        point=Point(values=trial.params, domains=trial.distributions),
        key=frozenset(trial.params.items()),
        kind=Kind.of(trial.user_attrs["config"], views=views),
        bests=() if infeasible else tuple(bests),
        seconds=seconds,
        failed=infeasible,
        ended=trial.state.is_finished(),
    )
