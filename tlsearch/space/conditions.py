"""When a dimension exists: the user's conditions, and those that the system knows by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tlsearch.core.types import Scalar
from tlsearch.space.backbones import backbone_facts
from tlsearch.space.bn_policies import BN_POLICIES, FROZEN
from tlsearch.space.domains import Choice, Domain, Fixed, IntRange

# Which dimensions the system's own conditions of a dimension read.
SYSTEM_READS: Mapping[str, tuple[str, ...]] = {
    "backbone_lr": ("unfreeze_depth",),
    "bn_policy": ("backbone", "unfreeze_depth"),
    "unfreeze_schedule": ("unfreeze_depth",),
    "layer_decay": ("unfreeze_depth",),
}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One user's condition: the dimension ``on`` has one of ``values``, or lies within ``ge`` and ``le``."""

    on: str
    values: tuple[Scalar, ...] = ()
    ge: float | None = None
    le: float | None = None

    def holds(self, value: Scalar) -> bool:
        """Whether it holds for a value; never for None, a dimension without effect."""
        if value is None:
            return False
        if self.values:
            return value in self.values
        if not isinstance(value, int | float):
            return False
        return (self.ge is None or value >= self.ge) and (self.le is None or value <= self.le)

    def possible(self, domain: Domain) -> bool:
        """Whether it holds for any value of a domain."""
        if isinstance(domain, Fixed):
            return self.holds(domain.value)
        if isinstance(domain, Choice):
            return any(self.holds(value) for value in domain.values)
        if self.values:
            return any(domain.contains(value) for value in self.values)
        if isinstance(domain, IntRange):
            return any(self.holds(value) for value in range(domain.low, domain.high + 1, domain.step))
        low = domain.low if self.ge is None else max(self.ge, domain.low)
        high = domain.high if self.le is None else min(self.le, domain.high)
        return low <= high

    def tree(self) -> dict[str, Any]:
        """The condition as plain JSON values."""
        return {"on": self.on, "values": list(self.values), "ge": self.ge, "le": self.le}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Condition:
        """The condition that ``tree`` wrote."""
        return cls(on=tree["on"], values=tuple(tree["values"]), ge=tree["ge"], le=tree["le"])

    def __str__(self) -> str:
        if self.values:
            return f"{self.on} is {' or '.join(str(one) for one in self.values)}"
        ends = [f"at least {self.ge:g}"] if self.ge is not None else []
        ends += [f"at most {self.le:g}"] if self.le is not None else []
        return f"{self.on} is {' and '.join(ends)}"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a dimension has no effect at a point: ``on`` is the dimension that decided it."""

    on: str
    message: str


def system_reason(name: str, point: Mapping[str, Scalar]) -> Reason | None:
    """Why a dimension has no effect at a point (what is decided so far), None where it has one."""
    if name == "backbone_lr" and point["unfreeze_depth"] == 0:
        message = "backbone_lr has no effect where unfreeze_depth is 0: no part of the backbone trains"
        return Reason(on="unfreeze_depth", message=message)
    depth = point.get("unfreeze_depth")
    if name == "unfreeze_schedule" and depth == 0:
        message = "unfreeze_schedule has no effect where unfreeze_depth is 0: no part of the backbone is unfrozen"
        return Reason(on="unfreeze_depth", message=message)
    if name == "layer_decay" and isinstance(depth, int) and depth < 2:
        message = f"layer_decay has no effect where unfreeze_depth is {depth}: it tells stages apart, and takes two"
        return Reason(on="unfreeze_depth", message=message)
    if name == "bn_policy":
        facts = backbone_facts(str(point["backbone"]))
        if facts is not None and not facts.has_batch_norm:
            message = f"bn_policy has no effect on {facts.name}, which has no batch norm"
            return Reason(on="backbone", message=message)
    return None


@cache
def head_only_policies(domain: Domain) -> Domain:
    """The BN policies of ``domain`` that differ at depth 0; ``frozen`` if none is left."""
    values = domain.values if isinstance(domain, Choice) else (domain.nearest(None),)
    left = tuple(value for value in values if BN_POLICIES[str(value)].at_depth_0)
    if len(left) > 1:
        return Choice(values=left)
    return Fixed(value=left[0] if left else FROZEN.name)
