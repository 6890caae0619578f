"""What of a space can ever matter: dimensions and values without effect at any of its points are errors.

Every dimension that decides whether others exist takes all of its values (of a range those where a condition may
change); the space is walked once for each combination, and what it asks for on the way has an effect there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from tlsearch.config import Document, SpaceFile
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.types import Scalar
from tlsearch.space.adapt_methods import kind_of_backbone
from tlsearch.space.conditions import NARROWED, SYSTEM_READS, Condition, Reason
from tlsearch.space.domains import Domain, IntRange, Listed
from tlsearch.space.libraries.backbones import backbone_facts
from tlsearch.space.slots import Dimension, Slot, is_screened
from tlsearch.space.space import Space
from tlsearch.space.syntax import place_of_value

_MOST_WALKS = 20_000  # beyond this number of combinations of deciding values nothing is said


@dataclass(kw_only=True)
class _Seen:
    """What walks over a space have met.

    Attributes:
        values: By dimension the listed values that a trial may have; a dimension that is absent never exists.
        reasons: By dimension the last reason why it did not exist: that of the largest value that decided.
    """

    values: dict[str, set[Scalar]] = field(default_factory=dict)
    reasons: dict[str, Reason] = field(default_factory=dict)


def effect_problems(file: SpaceFile, space: Space) -> list[SpaceProblem]:
    """Dimensions of the file, and values of its lists, that no trial of the space could use."""
    problems, document = _unfit_screen(file, space), file.document
    seen = _walk_all(space)
    if seen is None:
        return problems
    for name in file.space:
        if name not in space.dimensions or name == "backbone" or _doubtful(name, space, document):
            continue
        dimension = space.dimensions[name]
        if name not in seen.values:
            problems.append(_without_effect(name, seen.reasons[name], document))
        else:
            problems += _unused_values(dimension, seen.values[name], document)
    return problems


def _unfit_screen(file: SpaceFile, space: Space) -> list[SpaceProblem]:
    """A screen that could prune nothing, or would prune what the search is after."""
    document = file.document
    if not is_screened(space) or document.doubtful(("space", "backbone")):
        return []
    if len(space.backbones()) == 1:
        message = "screen has no effect on a single backbone: it compares several; leave it out"
    elif file.search.listed and not document.doubtful(("search", "sampler")):
        place = document.place(("search", "sampler"))
        message = f"screen has no effect with sampler {file.search.sampler}{place}: start_with is the whole search"
    elif file.search.objectives and not document.doubtful(("search", "objectives")):
        place = document.place(("search", "objectives"))
        message = (
            f"screen does not go with objectives{place}: it prunes by accuracy alone, and the small backbones that it "
            "prunes may be on the front; leave it out"
        )
    else:
        return []
    return [document.problem(("space", "backbone", "screen"), message, at_key=True)]


def _walk_all(space: Space) -> _Seen | None:
    """Every combination of deciding values; None where there are too many, or a ratio decides."""
    if any(space.dimensions[one].ratio_of for one in _deciders(space)):
        return None
    deciding = {one: _representatives(one, space) for one in _deciders(space)}
    if math.prod(len(values) for values in deciding.values()) > _MOST_WALKS:
        return None
    seen = _Seen()
    for values in product(*reversed(deciding.values())):  # the first one changes fastest
        choice = dict(zip(reversed(deciding), values, strict=True))

        def choose(slot: Slot, choice: Mapping[str, Scalar] = choice) -> Scalar:
            domain = slot.domain
            wanted = choice.get(slot.dimension)
            value = wanted if slot.dimension in choice and domain.contains(wanted) else domain.nearest(None)
            used = {value} if slot.dimension in choice else set(_listed(domain))
            seen.values.setdefault(slot.dimension, set()).update(used)
            return value

        seen.reasons.update(space.reasons(choose))
    return seen


def _deciders(space: Space) -> list[str]:
    """The dimensions that others look at, in the order in which they are decided."""
    read = {each.on for one in space.dimensions.values() for each in one.when}
    read.update(*SYSTEM_READS.values())
    return [name for name in space.names() if name in read]


def _representatives(name: str, space: Space) -> Sequence[Scalar]:
    """Values of a deciding dimension, at least one of each kind that conditions tell apart."""
    domain = space.dimensions[name].domain
    conditions = [each for one in space.dimensions.values() for each in one.when if each.on == name]
    values: Sequence[Scalar]
    if isinstance(domain, Listed):
        values = domain.values
    elif isinstance(domain, IntRange) and domain.high - domain.low <= 64 * domain.step:
        values = tuple(range(domain.low, domain.high + 1, domain.step))
    else:
        marks: list[float] = [domain.low, domain.high]
        for one in conditions:
            marks += [mark for mark in (one.ge, one.le, *one.values) if isinstance(mark, int | float)]
        marks.sort()
        between = [(low + high) / 2 for low, high in zip(marks, marks[1:], strict=False)]
        values = tuple(dict.fromkeys(domain.nearest(mark) for mark in (*marks, *between)))
    if name != "backbone":
        return values
    return tuple({_kind_of(str(value), conditions): value for value in reversed(values)}.values())


def _kind_of(backbone: str, conditions: Sequence[Condition]) -> tuple[bool, ...]:
    """What conditions ask of a backbone: hundreds of names are few kinds."""
    facts = backbone_facts(backbone)
    own = (True, True) if facts is None else (facts.has_batch_norm, facts.has_class_token)
    return (*own, *kind_of_backbone(facts), *(one.holds(backbone) for one in conditions))


def _listed(domain: Domain) -> tuple[Scalar, ...]:
    """The values of a list or the one fixed value; none of a range."""
    return domain.values if isinstance(domain, Listed) else ()


def _without_effect(name: str, reason: Reason, document: Document) -> SpaceProblem:
    when = ("space", name, "when")
    change = f"change {reason.on}, the condition{document.place(when)}" if document.has(when) else f"change {reason.on}"
    message = (
        f"no trial of this space can use {name}: {reason.message}{_decided_at(reason.on, document)}; "
        f"{change} or leave {name} out"
    )
    return document.problem(("space", name), message, at_key=True)


def _unused_values(dimension: Dimension, used: set[Scalar], document: Document) -> list[SpaceProblem]:
    name = dimension.name
    problems = []
    for value in _listed(dimension.domain):
        if value in used:
            continue
        message = f"no trial of this space can have {name} {value}: "
        if name in NARROWED:
            on = NARROWED[name].on
            message += f"it takes {NARROWED[name].takes(value)}{_decided_at(on, document)}; "
            message += f"change {on} or leave {value} out"
        else:
            message += f"the conditions of the space rule it out; change them or leave {value} out"
        problems.append(document.problem(place_of_value(name, value, document), message))
    return problems


def _decided_at(on: str, document: Document) -> str:
    if document.has(("space", on)):
        return document.place(("space", on))
    return " (by default)"


def _doubtful(name: str, space: Space, document: Document) -> bool:
    """Whether a dimension, or one that decides it, is in error already."""
    todo, found = [name], set[str]()
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += [*SYSTEM_READS.get(one, ()), *(each.on for each in space.dimensions[one].when)]
    return any(document.doubtful(("space", one)) for one in found)
