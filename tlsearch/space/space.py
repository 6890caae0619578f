"""A search space: which values a trial may have, decided in a fixed order under conditions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from tlsearch.config import nearest, suggest
from tlsearch.core.codec import parse_json
from tlsearch.core.types import Scalar, TrialConfig
from tlsearch.space.conditions import NARROWED, NO_EFFECT, Reason, system_reason
from tlsearch.space.dimensions import PARAMETERS
from tlsearch.space.domains import Fixed, Listed, Suggester
from tlsearch.space.slots import Dimension, EntryProblem, Slot, outside

_MAX_DEPTH = 5  # everything

# Where they have no effect these have their default: their types know no None.
_ALWAYS_VALUED = frozenset(one.name for one in fields(TrialConfig) if one.default is not None)

# Of searches and spaces that were written before they named their defaults.
EARLIER_DEFAULTS: Mapping[str, Scalar] = {"batch_size": 32, "head_init": "random"}


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """A point of the space.

    Attributes:
        point: Every dimension: its value, its default where a user's condition does not hold, and where the system
            knows it to have no effect None, or the default of one that always has a value.
        values: The active dimensions, by the names they are proposed under.
        reasons: Why each of the other dimensions is inactive.
    """

    point: dict[str, Scalar] = field(default_factory=dict)
    values: dict[str, Scalar] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Space:
    """All dimensions of a search, in the order in which they are decided; left-out ones are fixed.

    "Values" below are keyed by the names that Optuna sees: the user's, but ``bn_policy`` is
    ``bn_policy_head_only`` at depth 0, since its choices differ there, and a ``backbone_lr`` that is written as a ratio
    is ``backbone_lr_ratio``. At depth 1 ``unfreeze_schedule`` has one value. Where a backbone takes other values of a
    range of ``image_size``, their ends and their step are in the name.

    Attributes:
        defaults: In place of those of PARAMETERS: of what is left out, of what does not exist at a point by a user's
            condition, and of starting points.
    """

    dimensions: Mapping[str, Dimension]
    defaults: Mapping[str, Scalar] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """The user's names of all dimensions."""
        return tuple(self.dimensions)

    def with_defaults(self, defaults: Mapping[str, Scalar]) -> Space:
        """The same space with other defaults of some dimensions."""
        dimensions = {
            name: replace(one, domain=Fixed(value=defaults[name])) if one.left_out and name in defaults else one
            for name, one in self.dimensions.items()
        }
        return Space(dimensions=dimensions, defaults={**self.defaults, **defaults})

    def default_of(self, name: str) -> Scalar:
        """The default of a dimension."""
        return self.defaults.get(name, PARAMETERS[name].default)

    def backbones(self) -> tuple[str, ...]:
        """All backbones of the space, as the user lists them."""
        domain = self.dimensions["backbone"].domain
        assert isinstance(domain, Listed), "backbones are names"
        return tuple(map(str, domain.values))

    def depths(self) -> tuple[int, ...]:
        """The unfreeze depths that a trial may have."""
        domain = self.dimensions["unfreeze_depth"].domain
        return tuple(depth for depth in range(_MAX_DEPTH + 1) if domain.contains(depth))

    def suggest(self, trial: Suggester) -> dict[str, Scalar]:
        """Proposes a point; a dimension with a single value is filled in without asking.

        Args:
            trial: Optuna's trial or anything with its ``suggest_*``.

        Returns:
            The values of all active dimensions.
        """
        return self._walk(lambda slot: slot.domain.suggest(slot.name, trial), ask_all=False).values

    def to_config(self, values: Mapping[str, Scalar]) -> TrialConfig:
        """The trial of a point; what has no effect there is None.

        Args:
            values: Of ``suggest``, or what Optuna stored of it; single values may be absent.

        Raises:
            ValueError: A value is missing or outside the space.
        """
        return TrialConfig(**self._look_up(values).point)  # type: ignore[arg-type]

    def to_params(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The active dimensions of a point by the user's names; arguments and errors of ``to_config``."""
        walk = self._look_up(values)
        # without a value a dimension is off (grad_clip) or the backbone's own (head_dropout)
        return {name: value for name, value in walk.point.items() if name not in walk.reasons and value is not None}

    def values_of(self, config: TrialConfig) -> dict[str, Scalar]:
        """The point at which a trial lies, the inverse of ``to_config``; only values that are to be proposed.

        Raises:
            ValueError: The trial is outside the space.
        """
        chosen: dict[str, Scalar] = {}

        def choose(slot: Slot) -> Scalar:
            value = slot.proposed(getattr(config, slot.dimension))
            if not slot.domain.contains(value):
                raise ValueError(outside(slot, value))
            if not isinstance(slot.domain, Fixed):
                chosen[slot.name] = value
            return value

        for name, value in self._walk(choose).point.items():
            if value != getattr(config, name):
                raise ValueError(f"{name} {getattr(config, name)} is outside the space, where it is {value} there")
        return chosen

    def default_point(self) -> dict[str, Scalar]:
        """The defaults moved to the nearest point of the space; only values that are to be proposed."""
        return self.complete({})

    def complete(self, partial: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Some dimensions, by the user's names, completed by the defaults.

        Returns:
            Only values that are to be proposed, ready for ``study.enqueue_trial``.

        Raises:
            ValueError: A dimension is unknown, has no effect there, or its value is outside the space.
        """
        problems = self.entry_problems(partial)
        if problems:
            raise ValueError("; ".join(problem.message for problem in problems))
        chosen: dict[str, Scalar] = {}

        def choose(slot: Slot) -> Scalar:
            value = self._start(slot, partial)
            if not isinstance(slot.domain, Fixed):
                chosen[slot.name] = value
            return value

        self._walk(choose)
        return chosen

    def starting_points(self, start_with: Sequence[Mapping[str, Scalar]]) -> list[dict[str, Scalar]]:
        """The first points of a search: each entry completed, then the default unless it is among them.

        Args:
            start_with: Entries by the user's names.

        Raises:
            ValueError: An entry is outside the space.
        """
        points = [self.complete(entry) for entry in start_with]
        default = self.default_point()
        return points if default in points else [*points, default]

    def entry_problems(self, entry: Mapping[str, Any]) -> list[EntryProblem]:
        """What is wrong with a starting point; what depends on a wrong value is passed over."""
        problems = []
        meant: set[str] = set()  # by unknown names; without a near name it may be any absent dimension
        for name, value in entry.items():
            if name not in self.dimensions:
                near = nearest(name, self.dimensions)
                meant |= {near} if near else self.dimensions.keys() - entry.keys()
                message = f"the dimension {name!r} is not known{suggest(name, self.dimensions)}"
                problems.append(EntryProblem(name=name, message=message))
            elif problem := PARAMETERS[name].problem(value):
                problems.append(EntryProblem(name=name, message=problem))
        known = {name: value for name, value in entry.items() if name not in {problem.name for problem in problems}}

        def choose(slot: Slot) -> Scalar:
            if slot.dimension in known:
                value = slot.proposed(PARAMETERS[slot.dimension].coerce(known[slot.dimension]))
                if not slot.domain.contains(value):
                    on = slot.narrowed[0] if slot.narrowed else self.dimensions[slot.dimension].ratio_of
                    problems.append(EntryProblem(name=slot.dimension, message=outside(slot, value), on=on))
            return self._start(slot, known)

        reasons = self._walk(choose).reasons
        problems += [EntryProblem(name=n, message=reasons[n].message, on=reasons[n].on) for n in known if n in reasons]
        wrong = meant | {problem.name for problem in problems}
        return [problem for problem in problems if problem.on not in wrong]

    def reasons(self, choose: Callable[[Slot], Scalar]) -> Mapping[str, Reason]:
        """Why dimensions have no effect at the point that ``choose`` makes: it gives each active one its value."""
        return self._walk(choose).reasons

    def to_json(self) -> str:
        """The space as text, so that a plan can be stored."""
        tree = [one.tree() for one in self.dimensions.values()]
        return json.dumps({"format": 1, "dimensions": tree, "defaults": dict(self.defaults)})

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space that ``to_json`` wrote."""
        content = parse_json(text, "a stored space", dict)
        dimensions = [Dimension.from_tree(one) for one in content["dimensions"]]
        return cls(dimensions={one.name: one for one in dimensions}, defaults=content.get("defaults", EARLIER_DEFAULTS))

    @cached_property
    def _order(self) -> tuple[tuple[Dimension, Slot | None, bool, bool], ...]:
        """The dimensions; the slot of one that is the same at every point; whether its value is; whether it is ruled.

        A search walks its space hundreds of times for each trial.
        """
        order = []
        for name, one in self.dimensions.items():
            slot, ruled = one.slot_at({}) if one.steady else None, self._ruled(name)
            settled = slot is not None and not one.when and not ruled and isinstance(one.domain, Fixed)
            order.append((one, slot, settled, ruled))
        return tuple(order)

    def _ruled(self, name: str) -> bool:
        """Whether a rule of the system may take a dimension's effect away at some point of this space."""
        if name not in NO_EFFECT:
            return False
        on = self.dimensions.get(NO_EFFECT[name].on)
        if on is None or on.when or not isinstance(on.domain, Fixed):
            return True
        narrowed = on.name in NARROWED and on.domain.value != self.default_of(on.name)  # a default is always left
        return narrowed or bool(NO_EFFECT[name].why(on.domain.value))

    def _walk(self, choose: Callable[[Slot], Scalar], *, ask_all: bool = True) -> _Walk:
        """Decides dimension after dimension; ``choose`` gives the value of each active one.

        Args:
            ask_all: Also those that have one value everywhere.
        """
        walk = _Walk()
        point, values = walk.point, walk.values
        for dimension, steady, settled, ruled in self._order:
            name = dimension.name
            if settled and not ask_all:
                assert isinstance(dimension.domain, Fixed)
                point[name] = values[name] = dimension.domain.value
                continue
            reason = system_reason(name, point) if ruled else None
            failed = next((one for one in dimension.when if not one.holds(point[one.on])), None)
            if reason is not None:
                point[name] = self.default_of(name) if name in _ALWAYS_VALUED else None
                walk.reasons[name] = reason
            elif failed is not None:
                point[name] = self.default_of(name)
                message = f"{name} exists only where {failed}; here it is {point[failed.on]}"
                walk.reasons[name] = Reason(on=failed.on, message=message)
            else:
                slot = steady or dimension.slot_at(point)
                values[slot.name] = choose(slot)
                point[name] = slot.valued(values[slot.name])
        return walk

    def _look_up(self, values: Mapping[str, Scalar]) -> _Walk:
        def choose(slot: Slot) -> Scalar:
            if isinstance(slot.domain, Fixed):
                return slot.domain.value
            if slot.name not in values:
                raise ValueError(f"a point needs a value of {slot.name}; it has {', '.join(values) or 'none'}")
            value = PARAMETERS[slot.dimension].coerce(values[slot.name])  # a factor is a number as its product is
            if not slot.domain.contains(value):
                raise ValueError(outside(slot, value))
            return value

        return self._walk(choose)

    def _start(self, slot: Slot, partial: Mapping[str, Scalar]) -> Scalar:
        parameter = PARAMETERS[slot.dimension]
        if slot.dimension in partial:
            return slot.domain.nearest(slot.proposed(parameter.coerce(partial[slot.dimension])))
        if slot.dimension == "backbone":
            return self.backbones()[0]
        default = self.default_of(slot.dimension) if slot.default is None else slot.default
        return slot.domain.nearest(slot.proposed(default))
