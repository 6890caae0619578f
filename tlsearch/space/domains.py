"""The values that a dimension may take; all ends are inclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tlsearch.core.types import Scalar


class Suggester(Protocol):
    """Proposes values; the signatures are those of Optuna's Trial."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """One value: nothing to propose."""

    value: Scalar

    @property
    def values(self) -> tuple[Scalar]:
        """The value as the only one of a list."""
        return (self.value,)

    def contains(self, value: Scalar) -> bool:
        """Whether a value lies in the domain."""
        return value == self.value

    def nearest(self, value: Scalar) -> Scalar:
        """The domain's value nearest to any value."""
        return self.value

    def suggest(self, name: str, trial: Suggester) -> Scalar:
        """A value proposed under ``name``."""
        return self.value

    def __str__(self) -> str:
        return f"fixed at {self.value}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A list of at least two values without order."""

    values: tuple[Scalar, ...]

    def contains(self, value: Scalar) -> bool:
        """Whether a value lies in the domain."""
        return value in self.values

    def nearest(self, value: Scalar) -> Scalar:
        """The value itself, else the nearest number, else the first."""
        if value in self.values:
            return value
        numbers = [one for one in self.values if isinstance(one, int | float)]
        if not isinstance(value, int | float) or not numbers:
            return self.values[0]
        return min(numbers, key=lambda one: abs(one - value))

    def suggest(self, name: str, trial: Suggester) -> Scalar:
        """A value proposed under ``name``."""
        value: Scalar = trial.suggest_categorical(name, list(self.values))
        return value

    def __str__(self) -> str:
        return f"one of {', '.join(str(one) for one in self.values)}"


@dataclass(frozen=True, kw_only=True)
class IntRange:
    """Whole numbers ``low, low + step, ..., high``; low < high."""

    low: int
    high: int
    step: int = 1

    def contains(self, value: Scalar) -> bool:
        """Whether a value lies in the domain."""
        if not isinstance(value, int):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def nearest(self, value: Scalar) -> Scalar:
        """The domain's value nearest to any number; of two the lower."""
        if not isinstance(value, int | float):
            return self.low
        inside = min(max(value, self.low), self.high)
        return min(range(self.low, self.high + 1, self.step), key=lambda one: abs(one - inside))

    def suggest(self, name: str, trial: Suggester) -> Scalar:
        """A value proposed under ``name``."""
        return trial.suggest_int(name, self.low, self.high, step=self.step)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")


@dataclass(frozen=True, kw_only=True)
class FloatRange:
    """Numbers from ``low`` to ``high``, low < high; ``log`` and ``step`` exclude each other."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def contains(self, value: Scalar) -> bool:
        """Whether a value lies in the domain; on a grid up to rounding."""
        if not isinstance(value, int | float):
            return False
        if self.step is None:
            return self.low <= value <= self.high
        return abs(value - self._on_grid(value)) < 1e-8 * max(1.0, self.step)

    def nearest(self, value: Scalar) -> Scalar:
        """The domain's value nearest to any number."""
        if not isinstance(value, int | float):
            return self.low
        inside = float(min(max(value, self.low), self.high))
        return inside if self.step is None else self._on_grid(inside)

    def suggest(self, name: str, trial: Suggester) -> Scalar:
        """A value proposed under ``name``."""
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def _on_grid(self, value: float) -> float:
        assert self.step is not None
        near = self.low + round((value - self.low) / self.step) * self.step
        return min(max(near, self.low), self.high)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (f" in steps of {self.step:g}" if self.step else "")


Listed = Fixed | Choice
Domain = Listed | IntRange | FloatRange


def listed(values: Sequence[Scalar]) -> Listed:
    """The domain of these values, at least one."""
    return Choice(values=tuple(values)) if len(values) > 1 else Fixed(value=values[0])


def largest(domain: Domain) -> float:
    """The largest number of a domain; minus infinity where it has none."""
    if isinstance(domain, IntRange | FloatRange):
        return domain.high
    return max((one for one in domain.values if isinstance(one, int | float)), default=-math.inf)


def domain_tree(domain: Domain) -> dict[str, Any]:
    """A domain as plain JSON values."""
    if isinstance(domain, Fixed):
        return {"fixed": domain.value}
    if isinstance(domain, Choice):
        return {"choice": list(domain.values)}
    if isinstance(domain, IntRange):
        return {"int": [domain.low, domain.high], "step": domain.step}
    return {"float": [domain.low, domain.high], "log": domain.log, "step": domain.step}


def domain_from_tree(tree: Mapping[str, Any]) -> Domain:
    """The domain that ``domain_tree`` wrote."""
    if "fixed" in tree:
        return Fixed(value=tree["fixed"])
    if "choice" in tree:
        return Choice(values=tuple(tree["choice"]))
    if "int" in tree:
        return IntRange(low=tree["int"][0], high=tree["int"][1], step=tree["step"])
    return FloatRange(low=tree["float"][0], high=tree["float"][1], log=tree["log"], step=tree["step"])
