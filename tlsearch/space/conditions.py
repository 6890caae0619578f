"""When a dimension exists, with which values and which default: the user's conditions, and the system's own rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tlsearch.core.types import SOLVED_HEADS, TRAINED, Scalar, hyperparameters
from tlsearch.space.adapt_methods import ADAPT_METHODS, fitting_methods
from tlsearch.space.bn_policies import BN_POLICIES, FROZEN
from tlsearch.space.domains import Choice, Domain, Fixed, IntRange, Listed, listed
from tlsearch.space.image_sizes import IMAGE_SIZE, name_of_sizes, own_size, suited
from tlsearch.space.libraries.backbones import backbone_facts


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
        if isinstance(domain, Listed):
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


@dataclass(frozen=True, kw_only=True)
class NoEffect:
    """Where a dimension has no effect, whatever the user says.

    Attributes:
        on: The dimension that decides.
        why: From its value to why the dimension has no effect there; empty where it has one.
    """

    on: str
    why: Callable[[Scalar], str]


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """Where a dimension has fewer values than the space gives it.

    Attributes:
        on: The dimension that decides.
        domain: From the space's values and the value of ``on`` to the values there; None where all of them are there.
        name: From the fewer values to what they are proposed under: Optuna takes one list of choices for each name.
        takes: From a value that is not there to what it would take, for messages.
    """

    on: str
    domain: Callable[[Domain, Scalar], Domain | None]
    name: Callable[[Domain], str]
    takes: Callable[[Scalar], str]


def _without_training(name: str, change: str) -> Callable[[Scalar], str]:
    return lambda depth: f"{name} has no effect where unfreeze_depth is 0: {change}" if depth == 0 else ""


def _too_few_stages(depth: Scalar) -> str:
    if not isinstance(depth, int) or depth >= 2:
        return ""
    return f"layer_decay has no effect where unfreeze_depth is {depth}: it tells stages apart, and takes two"


def _without_batch_norm(backbone: Scalar) -> str:
    facts = backbone_facts(str(backbone))
    if facts is None or facts.has_batch_norm:
        return ""
    return f"bn_policy has no effect on {facts.name}, which has no batch norm"


def _without_class_token(backbone: Scalar) -> str:
    facts = backbone_facts(str(backbone))
    if facts is None or facts.has_class_token:
        return ""
    return f"features has no effect on {facts.name}, whose classifier reads no class token"


def _of_training(name: str) -> Callable[[Scalar], str]:
    return lambda head: f"{name} has no effect where head is {head}: nothing trains" if head in SOLVED_HEADS else ""


def _without_penalty(head: Scalar) -> str:
    if head in ("ridge", "logistic"):
        return ""
    return f"head_penalty has no effect where head is {head}: ridge and logistic have a penalty"


def _without_rank(method: Scalar) -> str:
    if ADAPT_METHODS[str(method)].has_rank:
        return ""
    ranked = " or ".join(name for name, one in ADAPT_METHODS.items() if one.has_rank)
    return f"lora_rank has no effect where adapt is {method}: it is the rank of {ranked}"


NO_EFFECT: Mapping[str, NoEffect] = {
    name: NoEffect(on="head", why=_of_training(name)) for name, _, row in hyperparameters() if row.where == TRAINED
} | {
    "head_penalty": NoEffect(on="head", why=_without_penalty),
    "backbone_lr": NoEffect(
        on="unfreeze_depth", why=_without_training("backbone_lr", "no part of the backbone trains")
    ),
    "unfreeze_schedule": NoEffect(
        on="unfreeze_depth", why=_without_training("unfreeze_schedule", "no part of the backbone is unfrozen")
    ),
    "layer_decay": NoEffect(on="unfreeze_depth", why=_too_few_stages),
    "bn_policy": NoEffect(on="backbone", why=_without_batch_norm),
    "features": NoEffect(on="backbone", why=_without_class_token),
    "adapt": NoEffect(on="unfreeze_depth", why=_without_training("adapt", "no part of the backbone trains")),
    "lora_rank": NoEffect(on="adapt", why=_without_rank),
}


@cache
def _head_only_policies(domain: Domain) -> Domain:
    """The BN policies of ``domain`` that differ at depth 0; ``frozen`` if none is left."""
    assert isinstance(domain, Listed), "policies are names"
    left = [value for value in domain.values if BN_POLICIES[str(value)].at_depth_0]
    return listed(left or [FROZEN.name])


NARROWED: Mapping[str, Narrowing] = {
    "bn_policy": Narrowing(
        on="unfreeze_depth",
        domain=lambda domain, depth: _head_only_policies(domain) if depth == 0 else None,
        name=lambda domain: "bn_policy_head_only",
        takes=lambda value: "unfreeze_depth 1 or more",
    ),
    "head": Narrowing(
        on="unfreeze_depth",
        domain=lambda domain, depth: Fixed(value="linear") if depth != 0 else None,
        name=lambda domain: "head",
        takes=lambda value: "unfreeze_depth 0",
    ),
    "unfreeze_schedule": Narrowing(  # a single stage has no order
        on="unfreeze_depth",
        domain=lambda domain, depth: Fixed(value="at_once") if depth == 1 else None,
        name=lambda domain: "unfreeze_schedule",
        takes=lambda value: "unfreeze_depth 2 or more",
    ),
    "adapt": Narrowing(
        on="backbone",
        domain=fitting_methods,
        name=lambda domain: "_".join(("adapt", *map(str, domain.values if isinstance(domain, Choice) else ()))),
        takes=lambda value: ADAPT_METHODS[str(value)].need.words,
    ),
    IMAGE_SIZE: Narrowing(
        on="backbone", domain=suited, name=name_of_sizes, takes=lambda value: "a backbone that takes it"
    ),
}

# Which dimensions the system's own rules of a dimension read.
SYSTEM_READS: Mapping[str, tuple[str, ...]] = {
    name: tuple(dict.fromkeys(table[name].on for table in (NO_EFFECT, NARROWED) if name in table))
    for name in (*NO_EFFECT, *NARROWED)
}


# The defaults of dimensions that follow from another one, which is named, and its value.
DEFAULTS_BY: Mapping[str, tuple[str, Callable[[Scalar], Scalar]]] = {IMAGE_SIZE: ("backbone", own_size)}


def default_at(name: str, point: Mapping[str, Scalar]) -> Scalar:
    """The default of a dimension at a point, where it follows from another dimension, which is decided; else None."""
    on, value_of = DEFAULTS_BY.get(name, ("", None))
    return None if value_of is None else value_of(point.get(on))


def dimension_of(name: str) -> str:
    """The dimension that is proposed under a name; names of fewer values begin with that of their dimension."""
    if any(name == one for one, _, _ in hyperparameters()):
        return name
    return next((one for one in NARROWED if name.startswith(f"{one}_")), name)


def system_reason(name: str, point: Mapping[str, Scalar]) -> Reason | None:
    """Why a dimension has no effect at a point (what is decided so far), None where it has one."""
    rule = NO_EFFECT.get(name)
    # a space that an earlier version stored lacks the dimensions that came later
    message = rule.why(point[rule.on]) if rule is not None and rule.on in point else ""
    return Reason(on=rule.on, message=message) if rule is not None and message else None


def active_values(point: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Those values of a whole point, such as a trial's configuration, that have an effect there."""
    return {name: value for name, value in point.items() if value is not None and system_reason(name, point) is None}
