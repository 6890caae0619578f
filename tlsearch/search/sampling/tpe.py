"""Optuna's samplers as the search uses them: a fresh one for every trial, seeded by its number.

One sampler seeded once would repeat its first proposals after each restart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pkgutil import resolve_name
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tlsearch.config.samplers import SAMPLERS
from tlsearch.core.types import Scalar
from tlsearch.search.seeds import derive_seed
from tlsearch.search.study._private import WindowedStudy

NUM_DRAWN = 10  # TPE proposes at random until this many trials have begun
NUM_GOOD = 25  # TPE's good group never holds more
NUM_SEEN = 250  # the smallest number of ended trials of which TPE's good group is NUM_GOOD


class GivenPoint(BaseSampler):
    """Proposes a point that has been chosen already."""

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing is proposed together."""
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """Nothing is proposed together."""
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """The point's value."""
        return self._values[param_name]


def seen(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """The trials that TPE is to know, at a cost that grows neither with the search nor with its cluster.

    All of them until NUM_SEEN have ended. From then on the NUM_GOOD best, TPE's good group as it would be of all
    trials, and the latest others: a sample of the bad group, the only one that still grows. Of running trials, which
    count as bad ones, the latest NUM_SEEN.
    """
    running = [trial.number for trial in trials if trial.state is TrialState.RUNNING]
    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
    if len(ended) <= NUM_SEEN and len(running) <= NUM_SEEN:
        return list(trials)
    complete = [trial for trial in ended if trial.state is TrialState.COMPLETE]  # pruned ones have values, too
    ranked = sorted(complete, key=lambda trial: float(trial.value or 0.0), reverse=direction is StudyDirection.MAXIMIZE)
    best = set(islice((trial.number for trial in ranked if not violates(trial)), NUM_GOOD))
    others = [trial.number for trial in ended if trial.number not in best]
    kept = {*best, *others[-(NUM_SEEN - len(best)) :], *running[-NUM_SEEN:]}
    return [trial for trial in trials if trial.number in kept]


def violates(trial: FrozenTrial) -> bool:
    """Whether any of the trial's constraints is violated."""
    return any(value > 0 for value in trial.constraints.values())


class Windowed(BaseSampler):
    """Has a sampler propose from a window of the study, as it is when the one trial of this sampler is asked for.

    Args:
        choose: From the study's trials that run or have a value to those that the sampler is to know.
    """

    def __init__(
        self, sampler: BaseSampler, choose: Callable[[Sequence[FrozenTrial], StudyDirection], list[FrozenTrial]]
    ) -> None:
        self._sampler, self._choose = sampler, choose

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler, of the window."""
        self._window = WindowedStudy(study, lambda trials: self._choose(trials, study.direction))
        return self._sampler.infer_relative_search_space(self._window, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        """As the sampler, of the window."""
        return self._sampler.sample_relative(self._window, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """As the sampler, of the window."""
        return self._sampler.sample_independent(self._window, trial, param_name, param_distribution)


def make_tpe(seed: int) -> BaseSampler:
    """TPE: multivariate within the groups of the conditional space (``group``).

    It counts running trials as bad ones so that parallel trials spread (``constant_liar``).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group`, known and wanted
        tpe = TPESampler(n_startup_trials=NUM_DRAWN, seed=seed, multivariate=True, group=True, constant_liar=True)
    return Windowed(tpe, seen)


def make_sampler(name: str, *, seed: int, number: int, attempt: int = 0) -> BaseSampler:
    """The sampler that proposes trial ``number`` of a search with that seed; another one for each attempt.

    Raises:
        KeyError: No sampler has this name.
    """
    own_seed = derive_seed(seed, f"sampler, attempt {attempt}" if attempt else "sampler", number)
    sampler = resolve_name(SAMPLERS[name].factory)(seed=own_seed)
    assert isinstance(sampler, BaseSampler)
    return sampler
