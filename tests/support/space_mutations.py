"""Mutations of the parsed tree of a space file; used by tests of the file and of its checks.

``mutate(text, seed)`` makes one mutation of the file ``text``: about a
third are harmless (the file stays valid), about a tenth break the syntax, the others swap a type,
cross the ends of a range, push a number out of its bounds or misspell a key.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Keys = tuple[str | int, ...]

KINDS = ("harmless",) * 4 + ("type",) * 3 + ("key",) * 2 + ("ends", "number", "syntax")
_OTHERS = ("abc", "", -7, 0, 3.5, True, None, [], [1, 2], {}, {"a": 1}, 10**12, float("nan"), float("inf"), [[1]])
_DEFAULTS: dict[Keys, Any] = {
    ("search", "patience"): None,
    ("search", "constraints"): {},
    ("search", "study"): "auto",
    ("search", "on_budget"): "cut",
    ("cache", "views"): 1,
    ("resources", "gpus_per_trial"): "auto",
    ("resources", "precision"): "auto",
}


@dataclass(frozen=True)
class Mutant:
    """A mutated file.

    Attributes:
        kind: One of KINDS.
        what: What was done, to be read where a test fails.
        lines: The lines of the mutated key and value, from 1; empty where harmless.
    """

    kind: str
    text: str
    what: str
    lines: frozenset[int] = frozenset()

    def is_named(self, line: int, message: str) -> bool:
        """Whether a fault at ``line`` names a mutated line, by its place or as ``(line 7; lines 9-12)``."""
        found = re.findall(r"lines? (\d+)(?:-(\d+))?", message)
        named = {one for first, last in found for one in range(int(first), int(last or first) + 1)}
        return bool({line, *named} & self.lines)


def mutate(text: str, seed: int) -> Mutant:
    """The mutation of a valid space file that belongs to a number.

    Tests count the numbers up: hypothesis would draw some from the constants in all modules that are loaded, so that
    the files would depend on the tests that ran before.
    """
    rng = random.Random(seed)
    return _MUTATIONS[rng.choice(KINDS)](yaml.safe_load(text), rng)


def _harmless(tree: dict[str, Any], rng: random.Random) -> Mutant:
    what = rng.choice(("order", "flow", "comments", "default", "seed"))
    if what == "order":
        at = rng.choice([path for path, value in _walk(tree) if isinstance(value, dict)])
        node = _get(tree, at)
        items = list(node.items())
        rng.shuffle(items)
        node.clear()
        node.update(items)
    elif what == "default":
        path = rng.choice(list(_DEFAULTS))
        _get(tree, path[:-1], make=True).setdefault(path[-1], _DEFAULTS[path])
    elif what == "seed":
        _get(tree, ("search",), make=True)["seed"] = rng.randrange(1000)
    text = _dump(tree, flow=what == "flow")
    if what == "comments":
        lines = text.split("\n")
        lines.insert(rng.randrange(len(lines)), "# a comment: [")
        text = "\n".join(lines)
    return Mutant(kind="harmless", text=text, what=what)


def _type(tree: dict[str, Any], rng: random.Random) -> Mutant:
    path, old = rng.choice([(path, value) for path, value in _walk(tree) if path])
    new = rng.choice([one for one in _OTHERS if type(one) is not type(old)])
    _get(tree, path[:-1])[path[-1]] = copy.deepcopy(new)
    return _mutant("type", tree, path, f"{path}: {old!r} -> {new!r}")


def _number(tree: dict[str, Any], rng: random.Random) -> Mutant:
    numbers = [(path, value) for path, value in _walk(tree) if type(value) in (int, float)]
    path, old = rng.choice(numbers)
    new = rng.choice((-old, old * 1000, -1, old + 0.5, 0))
    _get(tree, path[:-1])[path[-1]] = new
    return _mutant("number", tree, path, f"{path}: {old!r} -> {new!r}")


def _ends(tree: dict[str, Any], rng: random.Random) -> Mutant:
    path, ends = rng.choice([(path, value) for path, value in _walk(tree) if _is_range(value)])
    ends.reverse()
    return _mutant("ends", tree, path, f"{path}: crossed")


def _key(tree: dict[str, Any], rng: random.Random) -> Mutant:
    path = rng.choice([path for path, _ in _walk(tree) if path and isinstance(path[-1], str)])
    node, old = _get(tree, path[:-1]), str(path[-1])
    new = old
    while new in node or not new:
        at = rng.randrange(len(old))
        new = rng.choice((old[:at] + old[at + 1 :], old[:at] + old[at] + old[at:], old[:at] + "x" + old[at + 1 :]))
    items = [(new if key == old else key, value) for key, value in node.items()]
    node.clear()
    node.update(items)
    return _mutant("key", tree, (*path[:-1], new), f"{path} -> {new!r}")


def _syntax(tree: dict[str, Any], rng: random.Random) -> Mutant:
    lines = _dump(tree).split("\n")
    at = rng.choice([number for number, line in enumerate(lines) if ": " in line])
    key, value = lines[at].split(": ", 1)
    broken = rng.choice(
        (
            f"{key}: [{value}",
            f"{key}: {{{value}",
            f'{key}: "{value}',
            f"{key}: @{value}",
            f"{key}: *nobody",
            f"{key}: !!python/object:os.system {value}",
            f"\t{key}: {value}",
            f"{key}: {value}: {value}",
        )
    )
    what = f"{lines[at]!r} -> {broken!r}"
    lines[at] = broken
    return Mutant(kind="syntax", text="\n".join(lines), what=what, lines=frozenset({at + 1}))


_MUTATIONS: dict[str, Callable[[dict[str, Any], random.Random], Mutant]] = {
    "harmless": _harmless,
    "type": _type,
    "number": _number,
    "ends": _ends,
    "key": _key,
    "syntax": _syntax,
}


def _is_range(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
    return numbers and value[0] != value[1]


def _walk(node: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    yield path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from _walk(value, (*path, key))


def _get(tree: Any, path: Keys, *, make: bool = False) -> Any:
    for part in path:
        tree = tree.setdefault(part, {}) if make else tree[part]
    return tree


def _mutant(kind: str, tree: dict[str, Any], path: Keys, what: str) -> Mutant:
    text = _dump(tree)
    return Mutant(kind=kind, text=text, what=what, lines=frozenset(_lines(yaml.compose(text), path)))


def _dump(tree: dict[str, Any], *, flow: bool = False) -> str:
    return yaml.safe_dump(tree, sort_keys=False, default_flow_style=flow, width=1000)


def _lines(node: yaml.Node, path: Keys) -> set[int]:
    """The lines of the key and the value at ``path``."""
    lines: set[int] = set()
    for part in path:
        if isinstance(node, yaml.MappingNode):
            lines, node = next(({_line(key)}, value) for key, value in node.value if key.value == part)
        else:
            node = node.value[part]
            lines = {_line(node)}
    return lines | set(_all_lines(node))


def _all_lines(node: yaml.Node) -> Iterator[int]:
    yield _line(node)
    for one in node.value if isinstance(node, yaml.CollectionNode) else ():
        for inner in one if isinstance(one, tuple) else (one,):
            yield from _all_lines(inner)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
