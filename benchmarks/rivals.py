"""The searches that the project's own is compared with: what users have otherwise. All drive simulated trials.

The stock ones are Ray's own classes, OptunaSearch and ASHAScheduler, fed as Tune feeds them.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import optuna
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from tlsearch.core.types import EpochReport, Scalar, TrialConfig
from tlsearch.forecast.simulation import PROPOSAL_S, Start
from tlsearch.search.seeds import derive_seed
from tlsearch.space import Space

RANDOM_S = 0.002  # what a proposal costs the driver, as ``PROPOSAL_S``

logging.getLogger("ray.tune").setLevel(logging.ERROR)
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Random:
    """Proposes at random out of a space."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """Uniform."""
        return self._rng.randrange(low, high + 1, step)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform, or log-uniform."""
        if step is not None:
            return low + step * self._rng.randrange(round((high - low) / step) + 1)
        return float(low * (high / low) ** self._rng.random()) if log else self._rng.uniform(low, high)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Uniform."""
        return self._rng.choice(list(choices))


class Stock:
    """Ray's OptunaSearch with Ray's ASHA: a stopped trial is told as complete, with its last value."""

    def __init__(
        self, space: Space, *, seed: int, metric: str, mode: str, max_epochs: int, tpe: bool, factor: int
    ) -> None:
        self._space, self._metric, self._seed = space, metric, seed
        define = cast("Any", lambda trial: space.suggest(trial) and None)
        sampler = None if tpe else optuna.samplers.RandomSampler(seed=seed)
        self._search = OptunaSearch(space=define, metric=metric, mode=mode, seed=seed if tpe else None, sampler=sampler)
        self._asha = ASHAScheduler(
            time_attr="training_iteration",
            metric=metric,
            mode=mode,
            max_t=max_epochs,
            grace_period=1,
            reduction_factor=factor,
        )
        self._suggest_s = PROPOSAL_S if tpe else RANDOM_S
        self._trials: list[SimpleNamespace] = []

    def next(self, now: float) -> Start:
        """OptunaSearch's proposal."""
        number = len(self._trials)
        values = cast("Mapping[str, Scalar]", self._search.suggest(str(number)))
        trial = SimpleNamespace(trial_id=str(number), stub=True)
        self._asha.on_trial_add(None, trial)  # type: ignore[arg-type]
        self._trials.append(trial)
        config = self._space.to_config(values)
        return Start(
            number=number, config=config, seed=derive_seed(self._seed, "trial", number), suggest_s=self._suggest_s
        )

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """ASHA's answer; at the end OptunaSearch is told the last value."""
        result = {"training_iteration": report.epoch, self._metric: report.metrics[self._metric]}
        trial = self._trials[number]
        self._search.on_trial_result(trial.trial_id, result)
        goes_on = self._asha.on_trial_result(None, trial, result) == ASHAScheduler.CONTINUE  # type: ignore[arg-type]
        if not goes_on:
            self._search.on_trial_complete(trial.trial_id, result)
        return goes_on

    def diverged(self, number: int, now: float) -> None:
        """The trial has raised an error."""
        self._search.on_trial_complete(str(number), None, error=True)


class OneEpochTopK:
    """Egele et al. (arXiv 2307.15422): all for one epoch, then the best ``keep`` to the end; then the next round."""

    def __init__(
        self, space: Space, *, seed: int, metric: str, sign: float, max_epochs: int, width: int, keep: int
    ) -> None:
        self._space, self._metric, self._seed, self._sign = space, metric, seed, sign
        self._max_epochs, self._width, self._keep = max_epochs, width, keep
        self._configs: list[TrialConfig] = []
        self._screened: dict[int, float] = {}
        self._ended: set[int] = set()
        self._queue: list[int] = []
        self._deep = False

    def next(self, now: float) -> Start | None:
        """A new configuration, or one of the best again."""
        if self._queue:
            return self._start(self._queue.pop(0), epochs_done=1)
        if not self._deep and len(self._configs) % self._width == 0 and len(self._configs) > len(self._ended):
            return None  # the round's first epochs are not all in yet
        if self._deep:
            self._deep = False
            self._screened.clear()
        number = len(self._configs)
        point = self._space.suggest(Random(derive_seed(self._seed, "top_k", number)))
        self._configs.append(self._space.to_config(point))
        return self._start(number)

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """After the first epoch a trial waits for the round's end."""
        if report.epoch > 1:
            return report.epoch < self._max_epochs
        self._screened[number] = self._sign * report.metrics[self._metric]
        self._screen_over(number)
        return False

    def diverged(self, number: int, now: float) -> None:
        """It is out."""
        self._screen_over(number)

    def _screen_over(self, number: int) -> None:
        if number in self._ended:
            return
        self._ended.add(number)
        if len(self._ended) == len(self._configs) and len(self._configs) % self._width == 0:
            self._deep = True
            self._queue = sorted(self._screened, key=lambda one: -self._screened[one])[: self._keep]

    def _start(self, number: int, epochs_done: int = 0) -> Start:
        return Start(
            number=number,
            config=self._configs[number],
            seed=derive_seed(self._seed, "trial", number),
            suggest_s=RANDOM_S,
            epochs_done=epochs_done,
        )


class TwoObjectives:
    """A sampler of Optuna's over a study with two directions: every trial runs to its end, as none can be stopped."""

    def __init__(
        self,
        space: Space,
        sampler: optuna.samplers.BaseSampler,
        *,
        seed: int,
        metric: str,
        max_epochs: int,
        cost_of: Callable[[TrialConfig], float],
        suggest_s: float,
    ) -> None:
        self._space, self._seed, self._metric, self._max_epochs = space, seed, metric, max_epochs
        self._cost_of, self._suggest_s = cost_of, suggest_s
        self._study = optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
        self._trials: list[optuna.Trial] = []
        self._costs: list[float] = []
        self._best: dict[int, float] = {}

    def next(self, now: float) -> Start:
        """The sampler's proposal."""
        trial = self._study.ask()
        config = self._space.to_config(self._space.suggest(trial))
        self._trials.append(trial)
        self._costs.append(self._cost_of(config))
        seed = derive_seed(self._seed, "trial", trial.number)
        return Start(number=trial.number, config=config, seed=seed, suggest_s=self._suggest_s)

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        """Goes on to the last epoch; then the study has the trial's best value."""
        value = report.metrics[self._metric]
        self._best[number] = max(value, self._best.get(number, value))
        if report.epoch < self._max_epochs:
            return True
        self._study.tell(self._trials[number], [self._best[number], self._costs[number]])
        return False

    def diverged(self, number: int, now: float) -> None:
        """The trial has failed."""
        self._study.tell(self._trials[number], state=optuna.trial.TrialState.FAIL)
