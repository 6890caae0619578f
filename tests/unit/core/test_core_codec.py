"""JSON of strangers: read within limits, and dataclasses only from values of their types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from tlsearch.core.codec import MAX_DEPTH, from_plain, parse_json, read_json, to_plain
from tlsearch.core.errors import StorageError


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "nested at most"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested at most"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested at most"),
        (b"[1]", "must hold an object, not a list"),
        (b"3", "must hold an object, not int"),
        (b"null", "must hold an object, not null"),
        (b"", "must be JSON"),
        (b"\0" * 64, "must be JSON"),
        (b"\xff\xfe{}", "must be JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "must be JSON"),  # more digits than Python converts
    ],
)
def test_what_cannot_be_read_names_its_file(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=reason) as error:
        read_json(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 500


def test_large_json_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.core.codec.MAX_BYTES", 10)
    (tmp_path / "a").write_text('{"a": 1234}')
    with pytest.raises(OSError, match="more than the 10 that are read"):
        read_json(tmp_path / "a")
    with pytest.raises(StorageError, match="at most 10 bytes"):
        parse_json('{"a": 1234}', "a text", dict)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(parse_json(json.dumps([[1]] * 1000), "x", list)) == 1000
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deepest, "x", list)


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    x: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    inner: Inner
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    pair: tuple[float, float] = (0.0, 1.0)
    scalar: str | int | float | bool | None = None
    maybe: Inner | None = None
    by_depth: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    anything: Mapping[str, Any] = field(default_factory=dict)


FULL = Outer(
    count=1,
    inner=Inner(x=1, names=("a",)),
    maybe=Inner(x=2.5),
    scalar="s",
    by_depth={"r": {0: 5}},
    anything={"x": [1]},
)


def test_a_dataclass_comes_back_from_json() -> None:
    plain = json.loads(json.dumps(to_plain(FULL) | {"colour": "red", "of_a_later_version": 3}))
    assert from_plain(Outer, plain) == FULL


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"count": "1"}, "Outer.count must be int, not a text"),
        ({"count": True}, "Outer.count"),
        ({"count": 1.5}, "Outer.count"),
        ({"count": None}, "Outer.count must be int, not null"),
        ({"flag": 1}, "Outer.flag"),
        ({"kind": "c"}, "Outer.kind"),
        ({"kind": []}, "Outer.kind"),
        ({"colour": "blue"}, "blue"),
        ({"colour": {}}, "Colour"),
        ({"pair": [1]}, "Outer.pair"),
        ({"pair": 1}, "Outer.pair"),
        ({"scalar": [1]}, "Outer.scalar"),
        ({"maybe": 3}, "Inner must be an object"),
        ({"inner": {"x": "1"}}, "Inner.x"),
        ({"inner": {"x": 1, "names": "abc"}}, "Inner.names"),
        ({"inner": {}}, "Inner is incomplete"),
        ({"by_depth": {"r": {"x": 1}}}, "invalid literal"),
        ({"by_depth": {"r": []}}, "Outer.by_depth"),
        ({"anything": []}, "Outer.anything"),
    ],
)
def test_a_value_of_another_type_is_named(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        from_plain(Outer, to_plain(FULL) | change)
    with pytest.raises(ValueError):
        from_plain(Outer, [])  # type: ignore[arg-type]
