"""The one way in: a space file to its SpaceFile and Space, or to all its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlsearch.config import DefaultsSpec, Document, Keys, SpaceFile, nearest, one_of, parse_space_file, suggest
from tlsearch.core.errors import SpaceError, SpaceProblem
from tlsearch.core.types import Scalar
from tlsearch.space.conditions import NARROWED, NO_EFFECT, SYSTEM_READS, Condition
from tlsearch.space.dimensions import PARAMETERS, RATIOS
from tlsearch.space.domains import Domain, Fixed
from tlsearch.space.effects import effect_problems
from tlsearch.space.file_checks import check_file, repeated_entries
from tlsearch.space.slots import Dimension
from tlsearch.space.space import EARLIER_DEFAULTS, Space
from tlsearch.space.syntax import DomainReader

# Stands in for a wrong backbone, so that the rest of the file can still be judged.
_STAND_IN = Fixed(value="resnet18")


def load(
    path: Path,
    overrides: Sequence[str] = (),
    data_path: Path | None = None,
    moved: Callable[[str], str] | None = None,
    current: Path | None = None,
    *,
    stored: bool = False,
    defaults: DefaultsSpec | None = None,
) -> tuple[SpaceFile, Space]:
    """Reads and checks a whole space file; opens no image and imports no torch.

    Args:
        path: As for ``parse_space_file``, as are those up to ``stored``.
        defaults: Those that the file does not name itself.

    Raises:
        SpaceError: All errors of structure and meaning, with file, line and column.
    """
    file, problems = parse_space_file(path, overrides, data_path, moved, current, stored=stored)
    if file is None:
        raise SpaceError(problems)
    if defaults is not None:
        file = replace(file, defaults=file.defaults.completed(defaults))
    space, more = build_space(file, stored=stored)
    if problems or more:
        raise SpaceError([*problems, *more])
    return file, space


def load_resolved(
    path: Path, moved: Callable[[str], str] | None = None, data_path: Path | None = None
) -> tuple[SpaceFile, Space]:
    """As ``load``, of the file that a search keeps: with the defaults that the search began with.

    Raises:
        SpaceError: As for ``load``.
    """
    defaults = DefaultsSpec(**EARLIER_DEFAULTS)  # type: ignore[arg-type]
    return load(path, data_path=data_path, moved=moved, stored=True, defaults=defaults)


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What the section says of each dimension that is right; ``doubts`` are those that are."""

    domains: dict[str, Domain] = field(default_factory=dict)
    conditions: dict[str, tuple[Condition, ...]] = field(default_factory=dict)
    ratios: dict[str, str] = field(default_factory=dict)
    screened: set[str] = field(default_factory=set)
    doubts: set[Keys] = field(default_factory=set)

    def reads(self, name: str) -> set[str]:
        """The dimensions that must be decided before this one."""
        found = {one.on for one in self.conditions.get(name, ())}
        found |= {on for on in SYSTEM_READS.get(name, ()) if on in self.domains or not self._idle(name, on)}
        return found | ({self.ratios[name]} if name in self.ratios else set())

    def _idle(self, name: str, on: str) -> bool:
        """Whether a dimension that is left out, at its default, takes no effect away and no value."""
        rule = NO_EFFECT.get(name)
        return name not in NARROWED and rule is not None and not rule.why(PARAMETERS[on].default)


def build_space(file: SpaceFile, *, stored: bool = False) -> tuple[Space, list[SpaceProblem]]:
    """Reads the dimensions and checks them against the rest of the file.

    Args:
        file: The file; what it leaves out of ``space`` is fixed at its default.
        stored: As for ``parse_space_file``.

    Returns:
        The space and its errors; a wrong dimension is replaced by its default, or by a stand-in.
    """
    document = file.document
    reader = DomainReader(document)
    if document.doubtful(("space",)) and not file.space:
        return _assemble(_Parts()), []
    parts = _read(file.space, reader, document)
    parts.doubts.update(_check_conditions(parts, reader, file.defaults.values))
    file = replace(file, document=document.with_doubts(parts.doubts))
    space = _assemble(parts).with_defaults(file.defaults.values)
    # Of a doubted value the loader has said what is wrong; the reader saw a stand-in.
    new = [one for one in reader.problems if one.path not in document.doubts]
    problems = [*new, *check_file(file, space)]
    if not stored:
        problems += [*effect_problems(file, space), *repeated_entries(file, space)]
    return space, problems


def _read(raw: Mapping[str, Any], reader: DomainReader, document: Document) -> _Parts:
    parts = _Parts()
    for name, value in raw.items():
        path: Keys = ("space", name)
        if name in PARAMETERS:
            _read_dimension(name, value, reader, parts)
            continue
        message = f"the dimension {name!r} is not known{suggest(name, PARAMETERS, keys=True)}"
        reader.problems.append(document.problem(path, message, at_key=True))
        near = nearest(name, PARAMETERS)
        # without a near name any absent dimension may have been meant
        parts.doubts.update(("space", one) for one in PARAMETERS if one == near or (near is None and one not in raw))
    if "backbone" not in raw and ("space", "backbone") not in parts.doubts:
        message = "the dimension 'backbone' is required, like backbone: [resnet18, mobilenet_v2]"
        reader.problems.append(document.problem(("space", "backbone"), message))
    if "backbone" not in parts.domains:
        parts.doubts.add(("space", "backbone"))
    return parts


def _read_dimension(name: str, value: Any, reader: DomainReader, parts: _Parts) -> None:
    keys = value if isinstance(value, dict) else {}
    ratio_of = reader.read_ratio(name, keys["ratio_of"]) if "ratio_of" in keys else None
    rule = PARAMETERS[name] if ratio_of is None else RATIOS[name]
    domain = reader.read(rule, value)
    when = reader.read_when(name, keys["when"]) if "when" in keys else ()
    screened = reader.read_screen(name, keys) if "screen" in keys else False
    if domain is None or when is None or screened is None or ("ratio_of" in keys and ratio_of is None):
        parts.doubts.add(("space", name))
        return
    parts.domains[name], parts.conditions[name] = domain, when
    if ratio_of is not None:
        parts.ratios[name] = ratio_of
    if screened:
        parts.screened.add(name)


def _check_conditions(parts: _Parts, reader: DomainReader, defaults: Mapping[str, Scalar]) -> set[Keys]:
    """Finds conditions that can never hold, and circles of conditions; returns the new doubts."""
    found: set[Keys] = set()
    for name, when in parts.conditions.items():
        for one in when:
            default = defaults.get(one.on, PARAMETERS[one.on].default)
            domain = parts.domains.get(one.on, Fixed(value=default))
            known = ("space", one.on) not in parts.doubts and one.on not in parts.ratios
            # where its own conditions do not hold it has its default
            by_default = bool(parts.conditions.get(one.on)) and one.holds(default)
            if known and not by_default and not one.possible(domain):
                path: Keys = ("space", name, "when", one.on)
                place = reader.document.place(("space", one.on))
                message = f"the condition can never hold: {one.on} is {_words(domain)}{place}"
                reader.problems.append(reader.document.problem(path, message))
                found.add(("space", name))
    for name in _circle(parts):
        if parts.conditions.get(name):
            path = ("space", name, "when")
            reads = one_of([one.on for one in parts.conditions[name]])
            message = f"conditions may not go in a circle; {name} depends on {reads}, which depends on {name}"
            reader.problems.append(reader.document.problem(path, message, at_key=True))
            found.add(("space", name))
    return found


def _words(domain: Domain) -> str:
    text = str(domain)
    return text if len(text) <= 80 else text[:77] + "..."


def _order(parts: _Parts) -> tuple[list[str], list[str]]:
    """The dimensions so that each comes after those it reads; and those that form a cycle."""
    order: list[str] = []
    left = list(PARAMETERS)
    while True:
        ready = next((name for name in left if parts.reads(name) <= set(order)), None)
        if ready is None:
            return order, left
        order.append(ready)
        left.remove(ready)


def _circle(parts: _Parts) -> list[str]:
    """The dimensions that depend on themselves; not those that merely depend on such ones."""
    _, left = _order(parts)

    def reaches(start: str) -> bool:
        seen: set[str] = set()
        todo = parts.reads(start)
        while todo:
            name = todo.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                todo |= parts.reads(name)
        return False

    return [name for name in left if reaches(name)]


def _assemble(parts: _Parts) -> Space:
    order, left = _order(parts)
    dimensions = {}
    for name in (*order, *left):
        default = _STAND_IN if name == "backbone" else Fixed(value=PARAMETERS[name].default)
        domain, ratio_of = parts.domains.get(name, default), parts.ratios.get(name)
        when, left_out = parts.conditions.get(name, ()), name not in parts.domains
        screened = name in parts.screened
        dimension = Dimension(
            name=name, domain=domain, when=when, ratio_of=ratio_of, left_out=left_out, screened=screened
        )
        # in a circle neither conditions nor ratios can be followed
        dimensions[name] = Dimension(name=name, domain=default) if name in left else dimension
    return Space(dimensions=dimensions)
