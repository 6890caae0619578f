"""The reference of the space file: every key is there, with a sentence, and the page is up to date."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import pytest

from tlsearch.app.views.space_schema import meanings_of
from tlsearch.config.forms import FORMS, keys_of
from tlsearch.space.dimensions import PARAMETERS

DOCS = Path(__file__).resolve().parents[2] / "docs"
reference = runpy.run_path(str(DOCS / "write_references.py"))["space_reference"]


def test_the_page_is_up_to_date() -> None:
    assert (DOCS / "space_file.md").read_text(encoding="utf-8") == reference(), "write it again: make reference"


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.__name__)
def test_every_field_has_a_sentence(form: type) -> None:
    meanings = meanings_of(form)
    assert [one.name for one in dataclasses.fields(form)] == list(meanings)
    assert all(text[0].isupper() or text[0] == "`" for text in meanings.values())
    assert all(text.endswith(".") for text in meanings.values())


def test_every_class_of_the_file_is_a_form() -> None:
    """A new section must be in FORMS, from which the page is written."""

    def classes(hint: object) -> set[type]:
        found = {hint} if isinstance(hint, type) and dataclasses.is_dataclass(hint) else set()
        for one in getattr(hint, "__args__", ()):
            found |= classes(one)
        return found

    from typing import get_type_hints

    inside = {one for form in FORMS.values() for hint in get_type_hints(form).values() for one in classes(hint)}
    assert inside <= set(FORMS.values())


def test_every_key_and_dimension_is_on_the_page() -> None:
    text = reference()
    sections = text.split("\n## ")
    for path, form in FORMS.items():
        title = f"`{'.'.join('KEY' if part == '*' else part for part in path)}`" if path else "The file"
        (section,) = [one for one in sections if one.startswith(f"{title}\n")]
        assert all(f"\n| `{key}` | " in section for key in keys_of(form).values())
    (space,) = [one for one in sections if one.startswith("`space`\n")]
    assert all(f"\n| `{name}` | {one.meaning.replace('``', '`')} | " in space for name, one in PARAMETERS.items())
    assert all(one.meaning.endswith(".") for one in PARAMETERS.values())


def test_values_and_defaults_come_from_the_classes() -> None:
    text = reference()
    for row in (
        "| `val` | Fraction of the images for validation. | a number, above 0 and below 1 | 0.15 |",
        "| `on_budget` | Whether trials that run when the time is over finish, or end at their next report (cut). "
        "| `finish`, `cut` | cut |",
        "| `max_concurrent` | Number of trials at a time; auto is as many as fit. "
        "| auto, or a whole number, at least 1 and at most 1000000 | auto |",
    ):
        assert row in text
    assert "| a duration such as 2h, 30m, 90s or 1h30m, or a number of seconds; none | none |" in text
    assert "| a whole number, from 0 to 5 | 0 | everywhere |" in text
