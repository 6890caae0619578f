"""A dimension where a trial's values are decided: under which name a value is proposed, and out of which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tlsearch.core.types import Scalar
from tlsearch.space.conditions import Condition, head_only_policies
from tlsearch.space.domains import Domain, Fixed

BN_POLICY = "bn_policy"
BN_POLICY_HEAD_ONLY = "bn_policy_head_only"
SCHEDULE = "unfreeze_schedule"


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One dimension of a space.

    Attributes:
        domain: Its values; with ``ratio_of`` the factors.
        when: It exists only where all of these conditions hold.
        ratio_of: The dimension whose value times the factor is its value.
        left_out: The file does not mention it: it has its default everywhere.
    """

    name: str
    domain: Domain
    when: tuple[Condition, ...] = ()
    ratio_of: str | None = None
    left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A dimension at one point of a walk: the name its value is proposed under, and its values there.

    Attributes:
        at_depth: The unfreeze depth, where that narrows the values; None where all of the space's are there.
        unit: What a proposed factor is multiplied with to be the dimension's value; None where it is the value.
    """

    dimension: str
    name: str
    domain: Domain
    at_depth: int | None = None
    unit: float | None = None

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


def slot_of(dimension: Dimension, point: Mapping[str, Scalar]) -> Slot:
    """The slot of a dimension at a point; what it depends on is decided there."""
    depth = point.get("unfreeze_depth")
    if dimension.name == BN_POLICY and depth == 0:
        domain = head_only_policies(dimension.domain)
        return Slot(dimension=BN_POLICY, name=BN_POLICY_HEAD_ONLY, domain=domain, at_depth=0)
    if dimension.name == SCHEDULE and depth == 1:  # a single stage has no order
        return Slot(dimension=SCHEDULE, name=SCHEDULE, domain=Fixed(value="at_once"), at_depth=1)
    if dimension.ratio_of is not None:
        unit = point[dimension.ratio_of]
        assert isinstance(unit, int | float), f"{dimension.ratio_of} is a number, not {unit!r}"
        return Slot(dimension=dimension.name, name=f"{dimension.name}_ratio", domain=dimension.domain, unit=float(unit))
    return Slot(dimension=dimension.name, name=dimension.name, domain=dimension.domain)


def is_steady(dimension: Dimension) -> bool:
    """Whether the slot of a dimension is the same at every point."""
    return dimension.name not in (BN_POLICY, SCHEDULE) and dimension.ratio_of is None


def outside(slot: Slot, value: Scalar) -> str:
    """What is wrong with a proposed value."""
    if slot.unit is not None:
        return (
            f"{slot.dimension} {slot.valued(value)} is outside the space, where it is {slot.unit:g} times {slot.domain}"
        )
    where = "" if slot.at_depth is None else f" at unfreeze_depth {slot.at_depth}"
    return f"{slot.dimension} {value} is outside the space{where}, where it is {slot.domain}"
