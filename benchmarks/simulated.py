"""A cluster that is simulated: a virtual clock, so many slots, and trials that replay recorded curves at their cost.

Everything that takes time is charged: a trial's start, the build of what the node stores (images, features) by the
first trial that needs it, every epoch, and every proposal of the sampler, during which the driver does nothing else.
"""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass, field, replace
from typing import Protocol

from tlsearch.core.types import EpochReport, TrialConfig
from tlsearch.testing.replay import Curve, Curves, distance

START_S = 0.3  # what Ray takes to hand a trial to a warm worker and to hear its end (docs/search_quality.md)
_NEIGHBOURS = 4
_TRIAL_NOISE, _EPOCH_NOISE = 0.012, 0.006  # standard deviations


@dataclass(frozen=True, kw_only=True)
class Start:
    """A trial that begins, or goes on after ``epochs_done``; ``suggest_s`` is what its proposal cost the driver."""

    number: int
    config: TrialConfig
    seed: int
    suggest_s: float
    epochs_done: int = 0


class Searcher(Protocol):
    """A search as the simulation drives it; ``now`` are seconds since it began."""

    def next(self, now: float) -> Start | None:
        """The next trial; None where none is to start now."""
        ...

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """Takes an epoch's report; True if the trial goes on."""
        ...

    def diverged(self, number: int, now: float) -> None:
        """The trial's loss was not finite."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a search found and when.

    Attributes:
        best: (seconds, best value so far), at each improvement.
        num_trials: Trials begun.
        num_epochs: Epochs reported.
        busy_s: Seconds of all slots that were spent in trials.
        suggest_s: Seconds that the driver spent on proposals.
    """

    best: tuple[tuple[float, float], ...]
    num_trials: int
    num_epochs: int
    busy_s: float
    suggest_s: float

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
        return curve, START_S + min(curve.opening_s, self._plain) + build_s


def _key(curve: Curve) -> tuple[object, ...]:
    """Trials of one key share what is stored."""
    return curve.config.backbone, curve.config.unfreeze_depth, curve.config.augmentation


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


@dataclass(kw_only=True)
class _Live:
    curve: Curve
    epochs_done: int


@dataclass(kw_only=True)
class _Totals:
    trials: set[int] = field(default_factory=set)
    epochs: int = 0
    busy_s: float = 0.0
    suggest_s: float = 0.0


def simulate(searcher: Searcher, curves: Source, *, slots: int, horizon_s: float, metric: str, sign: float) -> Trace:
    """Runs a search for ``horizon_s`` of virtual time.

    Args:
        sign: 1 where the metric is to be maximised, else -1; the trace's values are multiplied with it.
    """
    node, totals = Node(curves), _Totals()
    queue: list[tuple[float, int, int]] = []  # when, in the order of their making, which trial
    live: dict[int, _Live] = {}
    best: list[tuple[float, float]] = []
    now, order, driver_free = 0.0, 0, 0.0

    def put(when: float, number: int) -> None:
        nonlocal order
        order += 1
        heapq.heappush(queue, (when, order, number))

    while now < horizon_s:
        while len(live) < slots:
            start = searcher.next(now)
            if start is None:
                break
            driver_free = max(driver_free, now) + start.suggest_s
            totals.suggest_s += start.suggest_s
            curve, opening_s = node.open(start)
            live[start.number] = _Live(curve=curve, epochs_done=start.epochs_done)
            totals.trials.add(start.number)
            totals.busy_s += opening_s
            put(driver_free + opening_s + _epoch_s(live[start.number]), start.number)
        if not queue:
            break
        now, _, number = heapq.heappop(queue)
        if now >= horizon_s:
            break
        one = live[number]
        totals.busy_s += _epoch_s(one)
        one.epochs_done += 1
        if one.epochs_done > one.curve.num_epochs:
            del live[number]
            searcher.diverged(number, now)
            continue
        report = one.curve.report(one.epochs_done, now)
        totals.epochs += 1
        value = sign * report.metrics[metric]
        if not best or value > best[-1][1]:
            best.append((now, value))
        if searcher.report(number, report, now):
            put(now + _epoch_s(one), number)
        else:
            del live[number]
    return Trace(
        best=tuple(best),
        num_trials=len(totals.trials),
        num_epochs=totals.epochs,
        busy_s=totals.busy_s,
        suggest_s=totals.suggest_s,
    )


def _epoch_s(one: _Live) -> float:
    """Seconds of the next epoch."""
    if one.epochs_done >= one.curve.num_epochs:
        return one.curve.diverged_s or 0.0
    return float(one.curve.columns["epoch_seconds"][one.epochs_done])
