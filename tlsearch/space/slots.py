"""A dimension where a trial's values are decided: under which name a value is proposed, and out of which.

Also spaces with fewer values of a dimension: what a screen leaves of the backbones, what a forecast tries out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tlsearch.core.types import Scalar
from tlsearch.space.conditions import NARROWED, Condition, default_at
from tlsearch.space.domains import Domain, domain_from_tree, domain_tree, listed

if TYPE_CHECKING:
    from tlsearch.space.space import Space


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One dimension of a space.

    Attributes:
        domain: Its values; with ``ratio_of`` the factors.
        when: It exists only where all of these conditions hold.
        ratio_of: The dimension whose value times the factor is its value.
        left_out: The file does not mention it: it has its default everywhere.
        screened: Its values, backbones, are to be screened before the first trial.
    """

    name: str
    domain: Domain
    when: tuple[Condition, ...] = ()
    ratio_of: str | None = None
    left_out: bool = False
    screened: bool = False

    def tree(self) -> dict[str, Any]:
        """The dimension as plain JSON values."""
        return {
            "name": self.name,
            "domain": domain_tree(self.domain),
            "when": [one.tree() for one in self.when],
            "ratio_of": self.ratio_of,
            "left_out": self.left_out,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Dimension:
        """The dimension that ``tree`` wrote."""
        return cls(
            name=tree["name"],
            domain=domain_from_tree(tree["domain"]),
            when=tuple(Condition.from_tree(one) for one in tree["when"]),
            ratio_of=tree.get("ratio_of"),
            left_out=tree.get("left_out", False),
        )

    @property
    def steady(self) -> bool:
        """Whether its values and their name are the same at every point."""
        return self.name not in NARROWED and self.ratio_of is None

    def domain_at(self, point: Mapping[str, Scalar]) -> Domain:
        """Its values at a point, in which the dimensions that it depends on are decided."""
        rule = NARROWED.get(self.name)
        narrowed = None if rule is None else rule.domain(self.domain, point.get(rule.on))
        return self.domain if narrowed is None else narrowed

    def slot_at(self, point: Mapping[str, Scalar]) -> Slot:
        """Its values at a point, and the name that they are proposed under there."""
        domain, default = self.domain_at(point), default_at(self.name, point)
        if domain is not self.domain:
            rule = NARROWED[self.name]
            narrowed = (rule.on, point[rule.on])
            return Slot(dimension=self.name, name=rule.name(domain), domain=domain, narrowed=narrowed, default=default)
        if self.ratio_of is not None:
            unit = point[self.ratio_of]
            assert isinstance(unit, int | float), f"{self.ratio_of} is a number, not {unit!r}"
            return Slot(dimension=self.name, name=f"{self.name}_ratio", domain=self.domain, unit=float(unit))
        return Slot(dimension=self.name, name=self.name, domain=self.domain, default=default)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A dimension at one point of a walk: the name its value is proposed under, and its values there.

    Attributes:
        narrowed: The dimension that narrows the values, and its value; None where all of the space's are there.
        unit: What a proposed factor is multiplied with to be the dimension's value; None where it is the value.
        default: The default there, where it follows from another dimension; None where it does not.
    """

    dimension: str
    name: str
    domain: Domain
    narrowed: tuple[str, Scalar] | None = None
    unit: float | None = None
    default: Scalar = None

    def proposed(self, value: Scalar) -> Scalar:
        """What is proposed where this is to be the dimension's value; a factor just off the ends is on them."""
        if self.unit is None or not isinstance(value, int | float):
            return value
        factor = value / self.unit
        inside = self.domain.nearest(factor)
        assert isinstance(inside, int | float)
        return inside if math.isclose(factor, inside, rel_tol=1e-9) else factor

    def valued(self, proposed: Scalar) -> Scalar:
        """The dimension's value where this is proposed."""
        if self.unit is None:
            return proposed
        assert isinstance(proposed, int | float)
        # To 12 digits, so that a value divided by the unit and multiplied with it again is the same value.
        return float(f"{proposed * self.unit:.12g}")


@dataclass(frozen=True, kw_only=True)
class EntryProblem:
    """What is wrong with one dimension ``name`` of a starting point; ``on`` is a dimension that decided it."""

    name: str
    message: str
    on: str | None = None


def outside(slot: Slot, value: Scalar) -> str:
    """What is wrong with a proposed value."""
    if slot.unit is not None:
        return (
            f"{slot.dimension} {slot.valued(value)} is outside the space, where it is {slot.unit:g} times {slot.domain}"
        )
    where = "" if slot.narrowed is None else f" at {slot.narrowed[0]} {slot.narrowed[1]}"
    return f"{slot.dimension} {value} is outside the space{where}, where it is {slot.domain}"


def with_domain(space: Space, name: str, domain: Domain) -> Space:
    """The same space with other values of one dimension."""
    return replace(space, dimensions={**space.dimensions, name: replace(space.dimensions[name], domain=domain)})


def is_screened(space: Space) -> bool:
    """Whether the backbones of a space are still to be screened."""
    return space.dimensions["backbone"].screened


def with_backbones(space: Space, kept: Collection[str]) -> Space:
    """What a screen leaves of a space: the kept backbones in its own order, with nothing left to screen.

    Args:
        kept: At least one backbone of the space; others are passed over.
    """
    dimension = space.dimensions["backbone"]
    left = [name for name in space.backbones() if name in kept]
    assert left, "a screen keeps a backbone of its space"
    narrowed = replace(dimension, domain=listed(left), screened=False)
    return replace(space, dimensions={**space.dimensions, "backbone": narrowed})
