"""Optuna's samplers as the search uses them: a fresh one for every trial, seeded by its number.

One sampler seeded once would repeat its first proposals after each restart.
"""

from __future__ import annotations

import warnings
from typing import Literal

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from tlsearch.search.seeds import derive_seed

SamplerName = Literal["tpe", "random", "fixed"]


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
