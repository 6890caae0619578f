"""Points of a conditional space, drawn without Optuna: at random, near another point, or nearest to a wish."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tlsearch.types import Scalar

if TYPE_CHECKING:
    from tlsearch.space import Space

_MOVES = 0.35  # share of a parent's dimensions that move
_STEP = 0.15  # standard deviation of a move, as a share of the range


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of the space, by the names that Optuna sees.

    Attributes:
        values: What was proposed.
        domains: Out of what.
        active: All that has an effect there, what is fixed too.
    """

    values: Mapping[str, Scalar]
    domains: Mapping[str, BaseDistribution]
    active: Mapping[str, Scalar] = field(default_factory=dict)


def draw(
    space: Space, rng: random.Random, parent: Mapping[str, Scalar] | None = None, *, central: bool = False
) -> Point:
    """A point at random; with a parent one that differs from it in some dimensions.

    Args:
        central: Numbers lean to the middle of their range, where its author expects the best: their density there is
            twice the uniform one, and none at the ends.
    """
    return _walk(space, _Drawer(parent or {}, rng, central=central))


def nearest(space: Space, wanted: Mapping[str, Scalar]) -> Point:
    """The point with these values, each moved to the nearest that the space has.

    Args:
        wanted: A value of every dimension that is active there, by the names that Optuna sees.
    """
    return _walk(space, _Drawer(wanted, None))


# Thousands of points are drawn out of the same few domains.
@cache
def _whole(low: int, high: int, step: int, log: bool) -> IntDistribution:
    return IntDistribution(low, high, step=step, log=log)


@cache
def _real(low: float, high: float, step: float | None, log: bool) -> FloatDistribution:
    return FloatDistribution(low, high, step=step, log=log)


@cache
def _choice(choices: tuple[Scalar, ...], kinds: tuple[type, ...]) -> CategoricalDistribution:
    return CategoricalDistribution(choices)  # kinds tell 1 from True and 1.0, which are equal


def _walk(space: Space, drawer: _Drawer) -> Point:
    active = space.suggest(drawer)
    return Point(values=drawer.values, domains=drawer.domains, active=active)


class _Drawer:
    """Proposes as Optuna's trial does; without ``rng`` the parent's values, moved into the space."""

    def __init__(self, parent: Mapping[str, Scalar], rng: random.Random | None, *, central: bool = False) -> None:
        self._parent, self._rng, self._central = parent, rng, central
        self.values: dict[str, Scalar] = {}
        self.domains: dict[str, BaseDistribution] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """On the grid."""
        last = (high - low) // step
        at = self._position(name, lambda value: (value - low) / (high - low))
        return int(self._keep(name, _whole(low, high, step, log), low + step * round(at * last)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform on the log scale where that is the dimension's; a wish is kept to the last digit."""
        wish = self._parent.get(name)
        if self._rng is None and step is None and isinstance(wish, int | float):
            value = float(wish)
        elif log:
            at = self._position(name, lambda value: math.log(value / low) / math.log(high / low))
            value = low * (high / low) ** at
        else:
            at = self._position(name, lambda value: (value - low) / (high - low))
            value = low + at * (high - low)
        if step is not None:
            value = low + step * round((value - low) / step)
        inside = min(high, max(low, value))
        return float(self._keep(name, _real(low, high, step, log), inside))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices; the first where the wish is none of them."""
        old = self._parent.get(name)
        known = name in self._parent and old in choices
        if self._rng is None:
            value = old if known else choices[0]
        else:
            value = old if known and self._rng.random() >= _MOVES else self._rng.choice(list(choices))
        self._keep(name, _choice(tuple(choices), tuple(map(type, choices))), value)
        return value

    def _position(self, name: str, locate: Callable[[Any], float]) -> float:
        """Where in its range, 0 to 1, a number is to be."""
        if name not in self._parent:
            if self._rng is None:
                return 0.5
            return self._rng.triangular() if self._central else self._rng.random()
        at = locate(self._parent[name])
        if self._rng and self._rng.random() < _MOVES:
            at += self._rng.gauss(0.0, _STEP)
        return min(1.0, max(0.0, at))

    def _keep(self, name: str, domain: BaseDistribution, value: Any) -> Any:
        self.values[name], self.domains[name] = value, domain
        return value
