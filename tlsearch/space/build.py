"""From the section ``space`` of a file to a Space, with the faults of its dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tlsearch.config import Document, Keys, SpaceFile, nearest, one_of, suggest
from tlsearch.errors import Fault
from tlsearch.space.checks import check_file
from tlsearch.space.conditions import SYSTEM_READS, Condition
from tlsearch.space.domains import Domain, Fixed
from tlsearch.space.parameters import PARAMETERS
from tlsearch.space.space import Dimension, Space
from tlsearch.space.syntax import DomainReader

# Stands in for a backbone at fault, so that the rest of the file can still be judged.
_STAND_IN = Fixed(value="resnet18")


def build_space(file: SpaceFile, document: Document) -> tuple[Space, list[Fault]]:
    """Reads the dimensions and checks them against the rest of the file.

    Args:
        file: The file; what it leaves out of ``space`` is fixed at its default.
        document: Its document, for the places, and for what ``config`` has found at fault already.

    Returns:
        The space and its faults; a dimension at fault is replaced by its default, or by a stand-in.
    """
    reader = DomainReader(document)
    if document.doubtful(("space",)) and not file.space:
        return _assemble({}, {}), []
    domains, conditions, doubts = _read(file.space, reader, document)
    doubts |= _check_conditions(domains, conditions, reader, doubts)
    document = document.with_doubts(doubts)
    space = _assemble(domains, conditions)
    return space, [*reader.faults, *check_file(file, space, document)]


def _read(
    raw: Mapping[str, Any], reader: DomainReader, document: Document
) -> tuple[dict[str, Domain], dict[str, tuple[Condition, ...]], set[Keys]]:
    domains: dict[str, Domain] = {}
    conditions: dict[str, tuple[Condition, ...]] = {}
    doubts: set[Keys] = set()
    for name, value in raw.items():
        path: Keys = ("space", name)
        if name not in PARAMETERS:
            message = f"the dimension {name!r} is not known{suggest(name, PARAMETERS)}"
            reader.faults.append(document.fault(path, message, at_key=True))
            near = nearest(name, PARAMETERS)
            # without a near name any absent dimension may have been meant
            doubts |= {("space", one) for one in PARAMETERS if one == near or (near is None and one not in raw)}
        else:
            domain = reader.read(PARAMETERS[name], value)
            when = reader.read_when(name, value["when"]) if isinstance(value, dict) and "when" in value else ()
            if domain is None or when is None:
                doubts.add(path)
            else:
                domains[name], conditions[name] = domain, when
    if "backbone" not in raw and ("space", "backbone") not in doubts:
        message = "the dimension 'backbone' is required, like backbone: [resnet18, mobilenet_v2]"
        reader.faults.append(document.fault(("space", "backbone"), message))
    if "backbone" not in domains:
        doubts.add(("space", "backbone"))
    return domains, conditions, doubts


def _check_conditions(
    domains: Mapping[str, Domain],
    conditions: Mapping[str, tuple[Condition, ...]],
    reader: DomainReader,
    doubts: set[Keys],
) -> set[Keys]:
    """Finds conditions that can never hold, and circles of conditions; returns the new doubts."""
    found: set[Keys] = set()
    for name, when in conditions.items():
        for one in when:
            domain = domains.get(one.on, Fixed(value=PARAMETERS[one.on].default))
            if ("space", one.on) not in doubts and not one.possible(domain):
                path: Keys = ("space", name, "when", one.on)
                place = reader.document.place(("space", one.on))
                message = f"the condition can never hold: {one.on} is {_words(domain)}{place}"
                reader.faults.append(reader.document.fault(path, message))
                found.add(("space", name))
    for name in _circle(conditions):
        if conditions.get(name):
            path = ("space", name, "when")
            reads = one_of([one.on for one in conditions[name]])
            message = f"conditions may not go in a circle; {name} depends on {reads}, which depends on {name}"
            reader.faults.append(reader.document.fault(path, message, at_key=True))
            found.add(("space", name))
    return found


def _words(domain: Domain) -> str:
    text = str(domain)
    return text if len(text) <= 80 else text[:77] + "..."


def _reads(name: str, conditions: Mapping[str, tuple[Condition, ...]]) -> set[str]:
    return {one.on for one in conditions.get(name, ())} | set(SYSTEM_READS.get(name, ()))


def _order(conditions: Mapping[str, tuple[Condition, ...]]) -> tuple[list[str], list[str]]:
    """The dimensions so that each comes after those it reads; and those for which there is no such place."""
    order: list[str] = []
    left = list(PARAMETERS)
    while True:
        ready = next((name for name in left if _reads(name, conditions) <= set(order)), None)
        if ready is None:
            return order, left
        order.append(ready)
        left.remove(ready)


def _circle(conditions: Mapping[str, tuple[Condition, ...]]) -> list[str]:
    """The dimensions that depend on themselves; not those that merely depend on such ones."""
    _, left = _order(conditions)

    def reaches(start: str) -> bool:
        seen: set[str] = set()
        todo = _reads(start, conditions)
        while todo:
            name = todo.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                todo |= _reads(name, conditions)
        return False

    return [name for name in left if reaches(name)]


def _assemble(domains: Mapping[str, Domain], conditions: Mapping[str, tuple[Condition, ...]]) -> Space:
    order, left = _order(conditions)
    dimensions = {}
    for name in (*order, *left):
        default = _STAND_IN if name == "backbone" else Fixed(value=PARAMETERS[name].default)
        dimension = Dimension(name=name, domain=domains.get(name, default), when=conditions.get(name, ()))
        dimensions[name] = replace(dimension, when=()) if name in left else dimension
    return Space(dimensions=dimensions)
