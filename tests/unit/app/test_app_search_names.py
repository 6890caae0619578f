"""Names of searches: checked before anything is written, the same wherever they enter."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from preparing import prepare, prepare_or_resume

from tlsearch.app.catalog.search_names import MAX_BYTES, check_name, new_search_id
from tlsearch.app.cluster.submit import SubmitOptions, submit_file
from tlsearch.app.production.confirm import _confirm_name
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.core.errors import StorageError, UsageError

TEXT = """
name: small
data: {source: digits}
weights: {resnet18: none}
space: {backbone: resnet18}
search: {trials: 2, max_epochs: 1}
"""
WRONG = [
    "", " ", "exp/1", "../out", "..", ".", "run:2", "a\\b", "-x", "--help", ".hidden", "_x", "a b", "a ", " a", "a\n",
    "a\0b", "a\tb", "\x1b[31mred", "con", "NUL.txt", "com1", "a.", "a*", "a?", "a@b", "~", "~me", "$HOME", "a;b",
    "\u202egnp", "\ud800", "x" * (MAX_BYTES + 1), "語" * 34,
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_name_is_refused_before_anything_is_written(file: Path, name: str) -> None:
    before = sorted(file.parent.rglob("*"))
    for start in (prepare, prepare_or_resume):
        if name or start is prepare:
            with pytest.raises(UsageError, match="a search's name has letters"):
                start(RunOptions(file=file, name=name))
    with pytest.raises(UsageError, match="a search's name has letters"):
        submit_file(SubmitOptions(file=file, address="http://127.0.0.1:1", name=name))
    assert sorted(file.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "7", "exp-1", "exp_1.b", "baseline.v2", "größe", "実験", "ते", "x" * MAX_BYTES])
def test_a_right_name_is_taken(name: str) -> None:
    assert check_name(name) == name


def test_both_unicode_forms_are_one_name() -> None:
    assert check_name(unicodedata.normalize("NFD", "größe")) == "größe"


def test_names_that_differ_in_case_only_are_refused(file: Path) -> None:
    prepare(RunOptions(file=file, name="Base"))
    with pytest.raises(StorageError, match="'base' is too close to 'Base'"):
        prepare(RunOptions(file=file, name="base"))
    assert prepare(RunOptions(file=file, name="base2")).entry.search_id == "base2"


def test_new_ids_are_free_readable_and_right(tmp_path: Path) -> None:
    first = new_search_id("my photos/2", tmp_path, now=0.0)
    assert first.startswith("my-photos-2-19") and "/" not in first
    (tmp_path / first).mkdir()
    assert new_search_id("my photos/2", tmp_path, now=0.0) == f"{first}-2"
    for name in ("語" * 100, "x" * 100, "..", "run:2", "-", "con", "[red]", "a" * 59 + ". b"):
        assert check_name(new_search_id(name, tmp_path))


def test_the_name_of_a_repetition_is_right(tmp_path: Path) -> None:
    assert _confirm_name("one") == "one-confirm"
    for name in ("x" * MAX_BYTES, "語" * 33):
        made = _confirm_name(name)
        assert check_name(f"{made}-99").startswith(name[:10])
