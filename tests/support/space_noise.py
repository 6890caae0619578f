"""Mutations of the text and of the tree of a space file, as an attacker, a broken editor or a bad disk makes them.

``noise(texts, seed)`` gives the bytes of one; ``space_mutations`` has the gentle ones, whose faults have known places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import yaml

_PIECES = (
    "&a [*a, *a]",
    "*a",
    "&a",
    "<<: *a",
    "!!python/object/apply:os.system ['true']",
    "!!binary aGk=",
    "!!set {a, b}",
    "!!timestamp 2001-12-14",
    "!include /etc/passwd",
    "? [a, b]\n: c",
    "? {a: b}",
    "---",
    "...",
    "%YAML 9.9",
    "%TAG ! tag:x,2000:",
    "|\n  text",
    ">-\n  text",
    '"\\U00110000"',
    '"\\ud800"',
    '"\\x00"',
    "'",
    '"',
    "[",
    "{",
    "]",
    "}",
    ": ",
    "- ",
    "#",
    "\t",
    "\0",
    "\x1b[31m",
    "\u202e",
    "\ufeff",
    "\u2028",
    "\x85",
    "e\u0301",
    "\U0001f600",
    "0x7fffffffffffffffffff",
    "0o777",
    "1" * 5000,
    "-" * 5000,
    "1e400",
    "-.inf",
    ".nan",
    "1_000",
    "1:30",
    "~",
    "null",
    "yes",
    "2024-01-01",
    "= ",
    "@x",
    "`x",
    "../../../../etc/passwd",
    "/dev/zero",
    "file:///etc/passwd",
    "https://user:secret@h/?token=x",
    "(a+)+$",
    "%s%n{0}{}",
    "$(id)",
    "x" * 20_000,
)
_SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    2**31,
    2**62,
    -(2**62),
    10**18,
    0.0,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "auto",
    "none",
    "x",
    "1",
    "resnet18",
    "resnet18@NONE",
    "timm/",
    "timm/resnet18",
    "a" * 3000,
    "\u0130",
    "2h",
    "99999999999999999999h",
    [],
    {},
    [[]],
    [None],
    {"": 1},
    {"when": {}},
    {"int": [0, 10**18]},
    {"log": [0, 1]},
    {"float": [1, 0]},
    {"int": [0, 5], "step": 0},
    {"when": {"unfreeze_depth": 1}, "ratio_of": "head_lr", "log": [1, 2]},
)

Mutation = Callable[[random.Random, str], bytes]


def noise(texts: Sequence[str], seed: int) -> tuple[str, bytes]:
    """What was done, and the mutated file."""
    rng = random.Random(seed)
    text = rng.choice(texts)
    mutation = rng.choice(MUTATIONS)
    data = mutation(rng, text)
    if rng.random() < 0.2:  # and once more
        again = rng.choice((_bytes, _pieces, _lines))
        data = again(rng, data.decode("utf-8", "replace"))
    return f"seed {seed}: {mutation.__name__}", data


def _bytes(rng: random.Random, text: str) -> bytes:
    data = bytearray(text.encode("utf-8", "replace"))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            data[place:place] = rng.randbytes(rng.randint(1, 6))
        elif kind == 1:
            del data[place : place + rng.randint(1, 40)]
        elif place < len(data):
            data[place] = rng.randrange(256)
    return bytes(data)


def _pieces(rng: random.Random, text: str) -> bytes:
    """Puts what means something to YAML, a shell or a terminal between or in place of words."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(text) + 1)
        end = place + rng.choice((0, 0, rng.randint(1, 30)))
        text = text[:place] + rng.choice(_PIECES) + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _lines(rng: random.Random, text: str) -> bytes:
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif kind == 1 and len(lines) > 1:
            del lines[place]
        elif kind == 2:
            lines[place] = " " * rng.randint(0, 5) + lines[place].lstrip()
        elif kind == 3:
            lines[place] = "\t" + lines[place]
        else:
            rng.shuffle(lines)
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")


def _deep(rng: random.Random, text: str) -> bytes:
    """Nests, aliases and multiplies without end."""
    count = rng.choice((20, 31, 33, 500, 20_000))
    value = rng.choice(
        (
            "[" * count + "]" * count,
            "[" * count,
            "{a: " * count + "1" + "}" * count,
            "- " * count + "x",
            "? " * count + "x",
            "[" + ", ".join(["1"] * count) + "]",
            "{" + ", ".join(f"k{number}: {number}" for number in range(count)) + "}",
            "x" * count * 40,
            '"' + "\\n" * count + '"',
            "\n".join(f"    k{number}: &l{number} [*l{number - 1}, *l{number - 1}]" for number in range(1, 31)),
            "[&a [1, 1, 1, 1], &b [*a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c, *c], &e [*d, *d, *d, *d], "
            "&f [*e, *e, *e, *e], &g [*f, *f, *f, *f], [*g, *g, *g, *g]]",
            "&self [*self]",
        )
    )
    places = [place for place, letter in enumerate(text) if letter == ":"]
    place = rng.choice(places) + 1
    end = text.find("\n", place)
    return (text[:place] + " " + value + text[end if rng.random() < 0.7 else place :]).encode()


def _tree(rng: random.Random, text: str) -> bytes:
    """Changes values, keys and shapes of the parsed file."""
    tree: Any = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        node, key = _pick(rng, tree)
        kind = rng.randrange(6)
        if kind <= 2:
            node[key] = rng.choice(_SCALARS)
        elif kind == 3 and isinstance(node, dict):
            node[rng.choice((f"{key}s", str(key)[:-1], "path", "when", "x", 1, None, ""))] = node.pop(key)
        elif kind == 4:
            other, other_key = _pick(rng, tree)
            node[key] = yaml.safe_load(yaml.safe_dump(other[other_key]))
        else:
            node[key] = [node[key]] * rng.choice((1, 2, 300))
    return yaml.safe_dump(tree, allow_unicode=rng.random() < 0.5, default_flow_style=rng.choice((None, True))).encode()


def _pick(rng: random.Random, tree: Any) -> tuple[Any, Any]:
    """A container of the tree and one of its keys or places."""
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        inner = node[key]
        if not (isinstance(inner, dict | list) and inner) or rng.random() < 0.3:
            return node, key
        node = inner


MUTATIONS: tuple[Mutation, ...] = (_bytes, _pieces, _pieces, _lines, _deep, _tree, _tree, _tree)
