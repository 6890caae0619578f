"""The text of a new space file: choices as YAML, their reasons as comments."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from tlsearch.app.init.choices import Choice
from tlsearch.core import PACKAGE
from tlsearch.core.errors import StorageError
from tlsearch.core.printable import printable

_QUICKSTART = "quickstart.yaml"
_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z./][\w./-]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "none", "auto", "y", "n")


def scalar(text: str) -> str:
    """A text as YAML, in quotes where it would be read as something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def space_text(name: str, choices: Sequence[Choice], *, about: Sequence[str], schema: str) -> str:
    """The whole file.

    Args:
        name: Of the experiment.
        choices: Those of one section one after another.
        about: Paragraphs for the top of the file.
        schema: Path of the JSON schema, for editors.
    """
    lines = [f"# yaml-language-server: $schema={schema}"]
    for paragraph in about:
        lines += _comment(paragraph, "")
    lines += ["", f"name: {scalar(name)}"]
    for section, members in groupby(choices, key=lambda one: one.key[0]):
        lines += ["", f"{section}:"]
        for choice in members:
            lines += _entry(choice)
    return "\n".join(lines) + "\n"


def _entry(choice: Choice) -> Iterator[str]:
    yield from _comment(choice.reason, "  ")
    yield from _comment(f"Or: {choice.instead}" if choice.instead else "", "  ")
    yield f"  {scalar(choice.key[-1])}: {choice.value}"


def _comment(text: str, indent: str) -> list[str]:
    """Lines that begin with ``#``; names in them cannot end the comment."""
    return [
        f"{indent}# {line}" for line in textwrap.wrap(printable(text), _WIDTH - len(indent) - 2, break_long_words=False)
    ]


def quickstart_text() -> str:
    """The space file of the demo: a wheel has it among the package's files, a checkout in ``search_spaces/``."""
    places = (PACKAGE / _QUICKSTART, PACKAGE.parent / "search_spaces" / _QUICKSTART)
    found = next((path for path in places if path.is_file()), None)
    if found is None:
        raise StorageError(f"tlsearch is not installed whole: it must have {places[0]}; install it again")
    return found.read_text(encoding="utf-8")
