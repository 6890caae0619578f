"""The samplers that a space file can name. A new one is a row here and a file in ``tlsearch.search``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplerEntry:
    """A sampler.

    Attributes:
        factory: ``module:name`` of what makes its ``optuna.samplers.BaseSampler`` when called with ``seed=``. A fresh
            one is made for every trial; imported when it is first used, since this room knows no optuna.
        options: The keys of ``search`` that apply to some samplers only, and to this one.
        listed: Whether the entries of ``start_with`` are the whole search.
    """

    factory: str
    options: frozenset[str] = frozenset()
    listed: bool = False


SAMPLERS: Mapping[str, SamplerEntry] = {
    "tpe": SamplerEntry(
        factory="tlsearch.search.sampling.tpe:make_tpe",
        options=frozenset({"starting_points", "cost_aware", "stop"}),
    ),
    "random": SamplerEntry(factory="optuna.samplers:RandomSampler", options=frozenset({"stop"})),
    # Draws only what an entry lacks: the space of a resumed search may have gained a dimension.
    "fixed": SamplerEntry(factory="optuna.samplers:RandomSampler", options=frozenset({"seeds"}), listed=True),
}
