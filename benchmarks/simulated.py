"""Trials that replay recorded curves at their cost, on the virtual clock of ``tlsearch.forecast.simulation``.

Everything that takes time is charged: a trial's start, the build of what the node stores (images, features) by the
first trial that needs it, every epoch, and every proposal of the sampler, during which the driver does nothing else.
"""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass, replace
from typing import Protocol

from tlsearch.core.types import EpochReport, TrialConfig
from tlsearch.forecast.simulation import HANDOUT_S, Searcher, Simulated, Start, simulate
from tlsearch.testing.replay import Curve, Curves, distance

_NEIGHBOURS = 4
_TRIAL_NOISE, _EPOCH_NOISE = 0.012, 0.006  # standard deviations


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a search found and when.

    Attributes:
        best: (seconds, best value so far), at each improvement.
        num_trials: Trials begun.
        num_epochs: Epochs reported.
        busy_s: Seconds of all slots that were spent in trials.
        suggest_s: Seconds that the driver spent on proposals.
        first_four: Best value of the first four trials, whenever they reached it.
    """

    best: tuple[tuple[float, float], ...]
    num_trials: int
    num_epochs: int
    busy_s: float
    suggest_s: float
    first_four: float = -math.inf

    def at(self, seconds: float, before: float) -> float:
        """The best value by then; ``before`` where there is none yet."""
        return max((value for time, value in self.best if time <= seconds), default=before)

    def area(self, horizon_s: float, before: float) -> float:
        """The mean over time of the best so far, from 0 to ``horizon_s``."""
        total, last_t, last_v = 0.0, 0.0, before
        for time, value in (*self.best, (horizon_s, 0.0)):
            total += last_v * (min(time, horizon_s) - last_t)
            if time >= horizon_s:
                break
            last_t, last_v = time, max(last_v, value)
        return total / horizon_s


class Source(Protocol):
    """Where trials' curves come from: recorded ones, or those between them."""

    curves: tuple[Curve, ...]

    def nearest(self, config: TrialConfig, seed: int) -> Curve:
        """The curve of a configuration."""
        ...


class Between:
    """Curves between the recorded ones: means of the nearest few, by distance, with noise of a trial and of an epoch.

    A table of few curves is soon known; here no two configurations reach the same, and the best lies anywhere.
    """

    def __init__(self, curves: Curves, metric: str) -> None:
        self.curves, self._metric = curves.curves, metric
        self._known: dict[TrialConfig, Curve] = {}

    def nearest(self, config: TrialConfig, seed: int) -> Curve:
        """The configuration's own curve; its cost is that of the nearest depth and augmentation."""
        if config not in self._known:
            self._known[config] = self._made(config, seed)
        return self._known[config]

    def _made(self, config: TrialConfig, seed: int) -> Curve:
        same = [curve for curve in self.curves if curve.config.backbone == config.backbone]
        near = sorted(((distance(config, curve.config), index) for index, curve in enumerate(same)))[:_NEIGHBOURS]
        first = same[near[0][1]]
        if first.num_epochs < first.max_epochs:
            return first  # it diverged
        whole = [(apart, same[index]) for apart, index in near if same[index].num_epochs == first.max_epochs]
        weights = [1 / (apart**2 + 0.05) for apart, _ in whole]
        chance = random.Random(repr(config))
        shift = chance.gauss(0.0, _TRIAL_NOISE)
        values = []
        for epoch in range(first.max_epochs):
            known = (curve.columns[self._metric][epoch] for _, curve in whole)
            mean = sum(w * value for w, value in zip(weights, known, strict=True)) / sum(weights)
            values.append(min(1.0, max(0.0, mean + shift + chance.gauss(0.0, _EPOCH_NOISE))))
        alike = min((curve for curve in same if curve.num_epochs == curve.max_epochs), key=lambda c: _cost(c, config))
        columns = {self._metric: tuple(values), "epoch_seconds": alike.columns["epoch_seconds"]}
        return replace(alike, seed=seed, columns=columns, sources=())


def _cost(curve: Curve, config: TrialConfig) -> float:
    """How far a curve's cost may be from that of a configuration."""
    other = curve.config
    return abs(other.unfreeze_depth - config.unfreeze_depth) + 0.5 * (other.augmentation != config.augmentation)


class Node:
    """Replays trials and knows what is stored already."""

    def __init__(self, curves: Source) -> None:
        self._curves = curves
        self._builds, self._plain = _builds(curves)
        self._stored: set[tuple[object, ...]] = set()

    def open(self, start: Start) -> tuple[Curve, float]:
        """The trial's curve, and the seconds before its first epoch."""
        curve = self._curves.nearest(start.config, start.seed)
        key = _key(curve)
        build_s = 0.0 if key in self._stored else self._builds[key]
        self._stored.add(key)
        return curve, HANDOUT_S + min(curve.opening_s, self._plain) + build_s


def _key(curve: Curve) -> tuple[object, ...]:
    """Trials of one key share what is stored."""
    return curve.config.model, curve.config.unfreeze_depth, curve.config.augmentation


def _builds(curves: Source) -> tuple[dict[tuple[object, ...], float], float]:
    """By key the seconds that the first recorded trial needed beyond what others need, and what others need."""
    first: dict[tuple[object, ...], float] = {}
    others: list[float] = []
    for curve in curves.curves:
        if _key(curve) in first:
            others.append(curve.opening_s)
        else:
            first[_key(curve)] = curve.opening_s
    plain = statistics.median(others) if others else 0.0
    return {key: max(0.0, opening_s - plain) for key, opening_s in first.items()}, plain


class Replayed:
    """A trial that takes a recorded curve's seconds and reports its values."""

    def __init__(self, curve: Curve, opening_s: float) -> None:
        self._curve, self._opening_s = curve, opening_s

    def opened(self, now: float) -> float:
        """As ``Node`` says."""
        return now + self._opening_s

    def epoch_end(self, epoch: int, now: float) -> float:
        """The recorded seconds; of the epoch that diverged those until it did."""
        if epoch > self._curve.num_epochs:
            return now + (self._curve.diverged_s or 0.0)
        return now + float(self._curve.columns["epoch_seconds"][epoch - 1])

    def report(self, epoch: int, now: float) -> EpochReport | None:
        """The recorded one."""
        return None if epoch > self._curve.num_epochs else self._curve.report(epoch, now)


def replayed(searcher: Searcher, curves: Source, *, slots: int, horizon_s: float, metric: str, sign: float) -> Trace:
    """Runs a search for ``horizon_s`` of virtual time.

    Args:
        sign: 1 where the metric is to be maximised, else -1; the trace's values are multiplied with it.
    """
    node = Node(curves)
    done = simulate(searcher, lambda start: Replayed(*node.open(start)), slots=slots, horizon_s=horizon_s)
    return traced(done, metric=metric, sign=sign)


def traced(done: Simulated, *, metric: str, sign: float) -> Trace:
    """What a search that was run found and when; ``sign`` as in ``replayed``."""
    best: list[tuple[float, float]] = []
    first_four = -math.inf
    for now, number, report in done.reports:
        value = sign * report.metrics[metric]
        first_four = max(first_four, value) if number < 4 else first_four
        if not best or value > best[-1][1]:
            best.append((now, value))
    return Trace(
        best=tuple(best),
        num_trials=len(done.trials),
        num_epochs=len(done.reports),
        busy_s=sum(trial.busy_s for trial in done.trials.values()),
        suggest_s=done.suggest_s,
        first_four=first_four,
    )
