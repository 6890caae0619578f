"""What a search will take: its own scheduler, simulated many times over trials that cost what this device takes.

How good trials will be is not known, and decides which are stopped early and where the sampler goes. So each simulation
draws its own truth: how good each backbone, depth and learning rate is, and how fast trials learn. It also draws how
far the timings are off. The interval is that of the simulations, 10th to 90th percentile.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tlsearch.core.types import EpochReport, Objective, StartReport, TrialConfig
from tlsearch.forecast.simulation import HANDOUT_S, ControllerSearcher, Ran, Start, simulate
from tlsearch.forecast.trial_costs import Node, TrialCosts
from tlsearch.search.plan import SearchPlan

_FEWEST, _MOST = 8, 48  # simulations of a forecast
_MOST_TRIALS = 200  # that are simulated; a longer search goes on at the same rate
_TAIL = 20  # the last trials of a simulation stand for all later ones
_SPREAD_WORK, _SPREAD_START = 0.12, 0.15  # standard deviations of the logarithm: how far timings are off
_SPREAD_BACKBONE, _SPREAD_DEPTH, _SPREAD_CHOICE, _SPREAD_TRIAL, _NOISE = 0.05, 0.03, 0.02, 0.015, 0.008
_CHOICES = ("augmentation", "bn_policy", "optimizer", "lr_schedule", "class_balance", "unfreeze_schedule", "head")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The 10th percentile, the median and the 90th percentile of the simulations."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of a value of each simulation."""
        return cls(low=quantile(values, 0.1), median=quantile(values, 0.5), high=quantile(values, 0.9))

    def holds(self, value: float) -> bool:
        """Whether a value lies within."""
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a search will take.

    Attributes:
        wall_s: Seconds from the command to its end.
        busy_s: Seconds of all slots that trials take; with ``gpus_per_trial`` these are GPU-seconds.
        start_s: Seconds before the first trial and after the last one.
        trials: How many trials begin.
        rungs: By epoch how many trials reach it, on average: each rung, and the last epoch.
        work_s: By number the seconds of a trial's epochs, each as long as ``epoch_s`` says, on average.
        work_rate: Seconds of work that all slots together do in a second, openings and waits in it.
        epoch_s: Seconds of one epoch, or fold, of a trial once what it reads is cached.
        mean_epochs: Epochs, or folds, of a trial, on average.
        scaled: Whether only the first trials were simulated.
    """

    wall_s: Interval
    busy_s: float
    start_s: float
    trials: float
    rungs: Mapping[int, float]
    work_s: tuple[float, ...]
    work_rate: float
    epoch_s: Callable[[TrialConfig], float]
    mean_epochs: float
    scaled: bool = False

    def work_left_s(self, begun: int, trials: int) -> float:
        """The work of all trials from number ``begun`` on, up to ``trials``; the later ones are as the last known."""
        known = sum(self.work_s[begun:trials])
        tail = self.work_s[-min(len(self.work_s), _TAIL) :]
        return known + max(0, trials - max(begun, len(self.work_s))) * _mean(tail)


def forecast(
    plan: SearchPlan,
    costs: TrialCosts,
    *,
    slots: int,
    start_s: float,
    stored: Node,
    limit_s: float = 5.0,
    simulations: int | None = None,
) -> Forecast:
    """Simulates a search, to the last of its trials: ``search.stop`` goes by values that are not known.

    Args:
        plan: Its directory is never looked at.
        costs: Of its trials.
        slots: Trials at a time.
        start_s: Seconds before the first trial and after the last one.
        stored: What the node's caches hold already.
        limit_s: No further simulation begins after this many seconds of CPU.
        simulations: How many, always the same ones; None is as many as the seconds allow.
    """
    num_trials = min(plan.search.trials, _MOST_TRIALS)
    shorter = replace(plan, directory=os.devnull, search=replace(plan.search, trials=num_trials, stop="none"))
    scale = 1.0 if plan.search.listed else plan.search.trials / num_trials
    began, ran = time.thread_time(), list[_Outcome]()
    fewest, most = (_FEWEST, _MOST) if simulations is None else (simulations, simulations)
    while len(ran) < fewest or (len(ran) < most and time.thread_time() - began < limit_s):
        ran.append(_simulated(shorter, costs, slots, start_s, stored, random.Random(f"simulation {len(ran)}")))
    budget_s = plan.search.time_budget_s
    walls = [one.start_s + min(one.end_s * scale, budget_s or math.inf) for one in ran]
    rungs = _milestones(plan)
    ends = {epoch: _mean(sum(t.epochs >= epoch for t in one.trials) * scale for one in ran) for epoch in rungs}
    work = [[t.epochs * costs.report_s(t.config) for t in one.trials] for one in ran]
    rates = [sum(mine) / max(one.end_s, 1e-9) for mine, one in zip(work, ran, strict=True)]
    return Forecast(
        wall_s=Interval.of(walls),
        busy_s=_mean(sum(t.busy_s for t in one.trials) * scale for one in ran),
        start_s=start_s,
        trials=_mean(len(one.trials) * scale for one in ran),
        rungs=ends,
        work_s=tuple(_mean(mine[n] for mine in work if n < len(mine)) for n in range(max(map(len, work)))),
        work_rate=_mean(rates),
        epoch_s=costs.report_s,
        mean_epochs=_mean(t.epochs for one in ran for t in one.trials),
        scaled=scale > 1,
    )


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """One simulation; seconds are those that its own truth about the timings makes of them."""

    trials: tuple[Ran, ...]
    end_s: float
    start_s: float


def _simulated(
    plan: SearchPlan, costs: TrialCosts, slots: int, start_s: float, stored: Node, rng: random.Random
) -> _Outcome:
    factor, starts = rng.lognormvariate(0.0, _SPREAD_WORK), rng.lognormvariate(0.0, _SPREAD_START)
    own = replace(costs, slowdown=costs.slowdown * factor)
    node, truth = Node(stored=dict(stored.stored)), Truth(rng, plan)
    searcher = ControllerSearcher(replace(plan, search=replace(plan.search, seed=rng.randrange(2**31))))
    done = simulate(searcher, lambda start: _Trial(start, own, node, truth), slots=slots)
    return _Outcome(trials=tuple(done.trials.values()), end_s=done.end_s, start_s=start_s * starts)


def _milestones(plan: SearchPlan) -> list[int]:
    asha, last = plan.rules.asha, plan.setup.num_reports
    rungs = {epoch for bracket in range(asha.brackets) for epoch in asha.milestones(bracket)} if asha else set()
    return sorted(rungs | {last})


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def quantile(values: Sequence[float], fraction: float) -> float:
    """A quantile of some values, between neighbours linear; ``fraction`` in 0 .. 1."""
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


class Truth:
    """How good the trials of one simulation are, out of many ways in which they might be."""

    def __init__(self, rng: random.Random, plan: SearchPlan) -> None:
        self._rng, self._metric = rng, plan.setup.metric
        self._worth: dict[tuple[str, object], float] = {}
        self._optimum = rng.uniform(-3.5, -2.0)
        self._speed = rng.uniform(0.5, 2.0)

    def curve(self, config: TrialConfig) -> Callable[[int], float]:
        """A trial's metric by epoch, 0 before the first step."""
        level = 0.6 + self._of("backbone", config.backbone, _SPREAD_BACKBONE)
        level += sum(
            self._of(f"{config.backbone} depth", depth, _SPREAD_DEPTH) for depth in range(1, config.unfreeze_depth + 1)
        )
        for name in _CHOICES if config.image_size is None else (*_CHOICES, "image_size"):
            level += self._of(name, getattr(config, name), _SPREAD_CHOICE)
        rate = config.head_lr if config.backbone_lr is None else config.backbone_lr
        level -= 0.03 * (math.log10(max(rate, 1e-9)) - self._optimum) ** 2
        level += self._rng.gauss(0.0, _SPREAD_TRIAL)
        slowness = self._speed * self._rng.lognormvariate(0.0, 0.4)
        maximised = Objective.of(self._metric).mode == "max"

        def value(epoch: int) -> float:
            reached = level * (1 - 0.4 * math.exp(-epoch / slowness)) + self._rng.gauss(0.0, _NOISE)
            return reached if maximised else 1 - reached

        return value

    def _of(self, kind: str, value: object, spread: float) -> float:
        return self._worth.setdefault((kind, value), self._rng.gauss(0.0, spread))


class _Trial:
    """A trial that costs what it costs here and is as good as one truth says."""

    def __init__(self, start: Start, costs: TrialCosts, node: Node, truth: Truth) -> None:
        self._config, self._costs, self._node = start.config, costs, node
        self._curve, self._metric = truth.curve(start.config), costs.setup.metric

    def opened(self, now: float) -> float:
        """See ``SimulatedTrial``."""
        return self._costs.opened(self._config, self._node, now + HANDOUT_S)

    def epoch_end(self, epoch: int, now: float) -> float:
        """See ``SimulatedTrial``."""
        return self._costs.report_end(self._config, self._node, now, number=epoch)

    def report(self, epoch: int, now: float) -> EpochReport | None:
        """See ``SimulatedTrial``."""
        start, setup, config = None, self._costs.setup, self._config
        if epoch == 1 and (config.solved or config.head_init == "probe") and not setup.folds:
            start = StartReport(metrics={self._metric: self._curve(0)}, timestamp=now)
        value = self._curve(setup.max_epochs if setup.folds else epoch)
        return EpochReport(
            epoch=epoch,
            metrics={self._metric: value},
            timestamp=now,
            start=start,
            folds=setup.folds,
            last=config.solved and not setup.folds,
        )
