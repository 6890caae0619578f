"""Points of a conditional space, by the names that Optuna sees: random ones, and the nearest to another."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlsearch.core.types import Scalar

if TYPE_CHECKING:
    from tlsearch.space import Space


def draw(space: Space, rng: random.Random, *, central: bool = False) -> Mapping[str, Scalar]:
    """A random point.

    Args:
        central: Numbers lean to the middle of their range, where its author expects the best: their density there is
            twice the uniform one, and none at the ends.
    """
    return _Drawer({}, rng.triangular if central else rng.random, rng.choice).point(space)


def nearest(space: Space, wanted: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """The point with these values, each moved to the nearest one in the space.

    Args:
        wanted: Values of dimensions. Others that are active have the middle of their range, or their first choice.
    """
    return _Drawer(wanted, lambda: 0.5, lambda choices: choices[0]).point(space)


class _Drawer:
    """Proposes values through the interface of Optuna's trial: the wanted one, else one at a position in the range."""

    def __init__(
        self,
        wanted: Mapping[str, Any],
        position: Callable[[], float],
        pick: Callable[[Sequence[Scalar]], Scalar],
    ) -> None:
        self._wanted, self._position, self._pick = wanted, position, pick
        self._values: dict[str, Scalar] = {}

    def point(self, space: Space) -> Mapping[str, Scalar]:
        """The values that this walk through the space chose."""
        space.suggest(self)
        return self._values

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """On the grid."""
        last = (high - low) // step
        at = (self._wanted[name] - low) / step if name in self._wanted else self._position() * last
        return int(self._keep(name, low + step * min(last, max(0, round(at)))))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform on the log scale where that is the dimension's; without a step a wanted value is kept to the bit."""
        if name in self._wanted:
            value = float(self._wanted[name])
        else:
            at = self._position()
            value = low * (high / low) ** at if log else low + at * (high - low)
        if step is not None:
            value = low + step * round((value - low) / step)
        return float(self._keep(name, min(high, max(low, value))))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices."""
        wanted = self._wanted.get(name)
        known = name in self._wanted and wanted in choices
        self._values[name] = value = wanted if known else self._pick(list(choices))
        return value

    def _keep(self, name: str, value: Any) -> Any:
        self._values[name] = value
        return value
