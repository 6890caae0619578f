"""YAML with places: what is read, what is refused, and where."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tlsearch.config.document.loader import MAX_BYTES, parse_document, parse_value, read_document
from tlsearch.core.errors import SpaceProblem


def only_problem(text: str) -> SpaceProblem:
    _, problems = parse_document(text, Path("space.yaml"))
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("1_000", 1000),
        ("-7", -7),
        ("010", 10),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'1e-3'", "1e-3"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("2h", "2h"),
        ("yes", True),
        ("off", False),
        ("none", "none"),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_are_read_as_people_read_them(text: str, value: object) -> None:
    read = parse_value(text)
    assert read == value
    assert type(read) is type(value)


def test_every_key_and_value_has_its_place() -> None:
    document, problems = parse_document("name: a\nsearch:\n  trials: 3\n  start_with:\n    - {x: 1}\n", Path("f"))
    assert document is not None and not problems
    assert (document.keys["search", "trials"].line, document.keys["search", "trials"].column) == (3, 3)
    assert (document.values["search", "trials"].line, document.values["search", "trials"].column) == (3, 11)
    assert document.values["search", "start_with", 0, "x"].line == 5
    problem = document.problem(("search", "absent"), "message")
    assert (problem.file, problem.line, problem.column) == ("f", 2, 1)


def test_all_duplicate_keys_are_listed() -> None:
    _, problems = parse_document("name: a\ndata: {x: 1, x: 2}\nname: b\nname: c\n", Path("f"))
    assert [(problem.line, problem.column) for problem in problems] == [(2, 14), (3, 1), (4, 1)]
    assert "'name' stands in line 1" in problems[1].message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("- a\n- b\n", 1, "mapping"),
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: 1\n---\nb: 2\n", 2, "one document"),
        ("a: 1\nb: [1, 2\nc: 3\n", 2, "flow sequence"),
        ('a: 1\nb: "abc\nc: 3\n', 2, "quoted"),
        ("a: 1\nb: *nobody\n", 2, "undefined alias"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "tags"),
        ("a: 1\nb: !!binary aGk=\n", 2, "tags"),
        ("a: 1\n5: 2\n", 2, "text, not 5"),
        ("a: 1\nyes: 2\n", 2, "text, not true"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge"),
        ("a: 1\nb: &b [*b]\n", 2, "contain itself"),
        ('a: 1\nb: "\\ud800"\n', 2, "half characters"),
        ('a: 1\nb: "\\0"\n', 2, "NUL"),
        ('a: 1\nb: "\\UFFFFFFFF"\n', 2, "escape"),
        ("a: 1\nb: \x07\n", 2, "forbids"),
        ("a: 1\nb: 99999999999999999999\n", 2, "2^63"),
        ("a: 1\nb: " + "[" * 1000, 2, "deep"),
        ("a: 1\n" + "".join(f"k{number}: 1\n" for number in range(20_000)), 5000, "at most 10000"),
    ],
)
def test_what_is_refused_is_a_problem_in_its_line(text: str, line: int, words: str) -> None:
    problem = only_problem(text)
    assert words in problem.message
    assert problem.line == line


def test_an_alias_bomb_is_refused_quickly() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12))
    assert "multiply" in only_problem(text).message


def test_a_plain_alias_is_read() -> None:
    document, problems = parse_document("a: &one [1, 2]\nb: *one\n", Path("f"))
    assert document is not None and not problems
    assert document.tree == {"a": [1, 2], "b": [1, 2]}
    assert document.tree["a"] is not document.tree["b"]


def test_files_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    undecodable = tmp_path / "latin.yaml"
    undecodable.write_bytes(b"a: 1\nname: caf\xe9\n")
    for path, words in [
        (tmp_path / "absent.yaml", "No such file"),
        (tmp_path, "it is a folder, not a file"),
        (large, "more than the 1,000,000 that are read"),
    ]:
        document, problems = read_document(path)
        assert document is None
        assert words in str(problems[0]) and str(path) in str(problems[0])
    document, problems = read_document(undecodable)
    assert document is None
    assert (problems[0].line, problems[0].column) == (2, 10) and "0xe9" in problems[0].message


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    document, problems = read_document(path)
    assert document is not None and not problems
    assert document.tree == {"name": "a"}


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("name: cats: 2024\n", 1, "put in quotes: name: 'cats: 2024'"),
        ("data:\n  path: C: \\images\n", 2, "path: 'C: \\images'"),
        ("name: it's 5: 3\n", 1, "name: 'it''s 5: 3'"),
        ('data: {path: "C:\\data\\cats"}\n', 1, "use single quotes"),
        ("name: @home\n", 1, "name: '@home'"),
        ("name: `x`\n", 1, "name: '`x`'"),
        ("name: %x\n", 1, "name: '%x'"),
        ("name: *.png\n", 1, "name: '*.png'"),
        ("name: [old] dog\n", 1, "name: '[old] dog'"),
        ("name: 'it's'\n", 1, "name: 'it''s'"),
        ('name: "x" y\n', 1, """name: '"x" y'"""),
        ("name: x\ntrials:8\nspace: 3\n", 2, "a blank follows the colon: trials: 8"),
        ("search:\n  trials: 3\n   seed: 4\n", 3, "begin in the same column"),
        ("search:\n  trials: 3\n seed: 4\n", 3, "begin in the same column"),
        ("name: x\n- a\n", 2, "an entry of a list"),
        ("search:\n\ttrials: 3\n", 2, "use spaces"),
    ],
)
def test_usual_mistakes_have_a_hint(text: str, line: int, hint: str) -> None:
    _, (problem,) = parse_document(text, Path("space.yaml"))
    assert hint in problem.message and problem.line == line


def test_a_hint_shows_no_password() -> None:
    _, (problem,) = parse_document("uri: postgresql://u:secret@h/d: x\n", Path("space.yaml"))
    assert "put in quotes" in problem.message and "secret" not in problem.message
