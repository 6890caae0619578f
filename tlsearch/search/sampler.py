"""Optuna's samplers as the search uses them: a fresh one for every trial, seeded by its number.

One sampler seeded once would repeat its first proposals after each restart.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from tlsearch.search.seeds import derive_seed
from tlsearch.types import Scalar

SamplerName = Literal["tpe", "random", "fixed"]


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


def make_sampler(name: SamplerName, *, seed: int, number: int) -> BaseSampler:
    """The sampler that proposes trial ``number`` of a search with that seed.

    TPE is multivariate within the groups of the conditional space (``group``), and counts running
    trials as bad ones so that parallel trials spread (``constant_liar``).
    """
    own_seed = derive_seed(seed, "sampler", number)
    if name != "tpe":
        return RandomSampler(seed=own_seed)  # a fixed search proposes nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # `group`, known and wanted
        return TPESampler(seed=own_seed, multivariate=True, group=True, constant_liar=True)
