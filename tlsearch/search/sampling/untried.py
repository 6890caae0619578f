"""Proposals that no trial has had: a search never trains one configuration twice.

Where a sampler proposes what was tried, it is asked again with other seeds, then points are drawn at random, then
the space is walked in order. All follows from the study, the search's seed and the trial's number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from tlsearch.core.codec import from_plain
from tlsearch.core.types import Scalar, TrialConfig
from tlsearch.search.sampling.points import draw
from tlsearch.search.sampling.tpe import GivenPoint

if TYPE_CHECKING:
    from tlsearch.space import Space

_NUM_ASKED = 8  # times that a sampler is asked; it may know no other point that it likes
_NUM_DRAWN = 64


class Configurations:
    """The configurations that trials have had; equal ones may differ in the last digits of a grid's values."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # numbers of trials; a configuration never changes
        self._keys: set[Hashable] = set()

    def of(self, trials: Sequence[FrozenTrial]) -> Configurations:
        """Takes those of these trials that it has not, so that a long search looks at each of its trials once."""
        for trial in trials:
            if trial.number not in self._seen and "config" in trial.user_attrs:
                self._seen.add(trial.number)
                self._keys.add(_key(from_plain(TrialConfig, trial.user_attrs["config"])))
        return self

    def __contains__(self, config: object) -> bool:
        return isinstance(config, TrialConfig) and _key(config) in self._keys


def _key(config: TrialConfig) -> Hashable:
    values = (getattr(config, one.name) for one in fields(config))
    return tuple(f"{value:.12g}" if isinstance(value, float) else value for value in values)


class Untried(GivenPoint):
    """Proposes what a sampler would, unless a trial has had that configuration."""

    def __init__(
        self,
        space: Space,
        tried: Container[TrialConfig],
        sampler_of: Callable[[int], BaseSampler],
        rng: random.Random,
    ) -> None:
        """Prepares one proposal.

        Args:
            space: The search's.
            tried: The configurations of all trials that have begun.
            sampler_of: The sampler for each attempt, from 0.
            rng: For points drawn at random.
        """
        super().__init__({})
        self._space, self._tried, self._sampler_of, self._rng = space, tried, sampler_of, rng
        self._first = sampler_of(0)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Chooses the point; nothing is proposed together."""
        self._values = self._choose(study, trial)
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        """The point's value; the sampler's own where a crash has left the trial with other values than the point's."""
        if param_name in self._values:
            return self._values[param_name]
        return self._first.sample_independent(study, trial, param_name, param_distribution)

    def _choose(self, study: Study, trial: FrozenTrial) -> Mapping[str, Scalar]:
        first: Mapping[str, Scalar] | None = None
        for attempt in range(_NUM_ASKED):
            drafted = Drafted(_sampled(self._sampler_of(attempt) if attempt else self._first, study, trial))
            self._space.suggest(drafted)
            first = drafted.values if first is None else first
            if self._new(drafted.values):
                return drafted.values
        for _ in range(_NUM_DRAWN):
            drawn = draw(self._space, self._rng)
            if self._new(drawn):
                return drawn
        assert first is not None
        return untried_point(self._space, self._tried, self._rng) or first

    def _new(self, values: Mapping[str, Scalar]) -> bool:
        return self._space.to_config(values) not in self._tried


class Drafted:
    """A point that is chosen through the interface of Optuna's trial, as it is there; no parameter is written.

    Attributes:
        values: What was chosen.
        distributions: What it was chosen from.
    """

    def __init__(self, choose: Callable[[str, BaseDistribution], Any]) -> None:
        self._choose = choose
        self.values: dict[str, Scalar] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """As Optuna's."""
        return int(self._suggest(name, IntDistribution(low, high, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As Optuna's."""
        return float(self._suggest(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As Optuna's."""
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, domain: BaseDistribution) -> Any:
        self.values[name], self.distributions[name] = self._choose(name, domain), domain
        return self.values[name]


def _sampled(sampler: BaseSampler, study: Study, trial: FrozenTrial) -> Callable[[str, BaseDistribution], Any]:
    """Chooses as Optuna's trial does with this sampler."""
    relative = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))

    def choose(name: str, domain: BaseDistribution) -> Any:
        if name in relative and _holds(domain, relative[name]):
            return relative[name]
        return sampler.sample_independent(study, trial, name, domain)

    return choose


def _holds(domain: BaseDistribution, value: Any) -> bool:
    """Whether a value that was sampled with others lies in the domain; the space may have changed since."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    assert isinstance(domain, IntDistribution | FloatDistribution)
    return bool(domain.low <= value <= domain.high)


def untried_point(space: Space, tried: Container[TrialConfig], rng: random.Random) -> Mapping[str, Scalar] | None:
    """The first point in the order of the space that no trial has had; None where all have been tried.

    It looks at one point more than were tried at most: a range without steps has always another value.

    Args:
        rng: Chooses values of ranges without steps.
    """
    for values in _points(space, rng):
        if space.to_config(values) not in tried:
            return values
    return None


def _points(space: Space, rng: random.Random) -> Iterator[Mapping[str, Scalar]]:
    """All points; of a range without steps one value at random."""
    counters: list[_Counter] = []
    while True:
        walk = _Odometer(counters, rng)
        space.suggest(walk)
        yield walk.values
        counters = walk.counters
        while counters and counters[-1].index + 1 >= counters[-1].size:
            counters.pop()
        if not counters:
            return
        counters[-1].index += 1


@dataclass(kw_only=True)
class _Counter:
    index: int
    size: int


@dataclass
class _Odometer:
    """Suggests the values that its counters say; dimensions beyond them begin at their first value."""

    counters: list[_Counter]
    rng: random.Random
    values: dict[str, Scalar] = field(default_factory=dict)
    position: int = 0

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """In order."""
        return int(self._keep(name, low + step * self._turn((high - low) // step + 1)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """In order on a grid, else at random."""
        if step is not None:
            index = self._turn(round((high - low) / step) + 1)
            return float(self._keep(name, min(low + index * step, high)))
        at = self.rng.random()
        return float(self._keep(name, low * (high / low) ** at if log else low + at * (high - low)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """In order."""
        return self._keep(name, choices[self._turn(len(choices))])

    def _turn(self, size: int) -> int:
        if self.position == len(self.counters):
            self.counters.append(_Counter(index=0, size=size))
        counter = self.counters[self.position]
        self.position += 1
        return counter.index

    def _keep(self, name: str, value: Any) -> Any:
        self.values[name] = value
        return value
