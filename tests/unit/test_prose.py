"""The package and its documentation keep to the field's plain English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTEAD = {
    r"\btold\b": "reported, recorded, sent or shown",
    r"\b(is|are|was) no (?!longer\b)": "is not, or does not exist",
    r"\bso many\b": "this number of, or at most N",
    r"\banew\b": "again",
    r"\bwhoever\b": "the subject by its name",
    r"\bnought\b": "zero",
    r"\bconductor\b": "controller",
    r"\bdestroyed\b.*features|features.*\bdestroyed\b": "feature distortion, or feature drift",
}


def written() -> list[Path]:
    files = [*(ROOT / "tlsearch").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    return sorted(path for path in files if path.name != "CHANGELOG.md")


def phrases(text: str) -> list[str]:
    """What a reader would stumble over, with its line and what to write instead."""
    return [
        f"line {number}: {found[0].strip()!r}: write {instead}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, instead in INSTEAD.items()
        if (found := re.search(pattern, line, re.IGNORECASE))
    ]


def test_no_text_has_a_banned_phrase() -> None:
    found = [f"{path.relative_to(ROOT)}, {one}" for path in written() for one in phrases(path.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["The study is told.", "It is no file.", "computed ANEW", "Whoever reads it", "so many"]
)
def test_a_banned_phrase_is_found(text: str) -> None:
    assert phrases(f"\n{text}")[0].startswith("line 2: ")


def test_plain_english_is_left_alone() -> None:
    assert not phrases("The trial is no longer among the best. It does not exist. It is reported again.")
