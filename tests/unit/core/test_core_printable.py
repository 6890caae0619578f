"""Names for people: nothing that a terminal would obey, nothing that cannot be seen."""

from __future__ import annotations

import io
import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsearch.core.printable import ENCODING_BYTES, ENCODING_ERRORS, PrintableFormatter, printable, printable_lines

NASTY = st.text(
    st.one_of(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "L", "So")), st.sampled_from("[]/:$\\\"'<>|`*_")),
    max_size=30,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]cat", "[red]cat"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b31m\x85", "\\u009b31m\\u0085"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("two\u2028lines", "two\\u2028lines"),
        ("caf\udce9.png", "caf\\xe9.png"),
        ("half\ud83d", "half\\ud83d"),
        ("a\u200bb", "a\\u200bb"),
    ],
)
def test_what_a_terminal_obeys_is_shown_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize("name", ["кот", "猫", "قطة", "👨‍👩‍👧", "می‌خواهم", "C:\\data\\cat", "café", "[/b] $x$ :cat:"])
def test_names_of_all_scripts_stay(name: str) -> None:
    assert printable(name) == name


@given(NASTY)
def test_no_name_breaks_a_line(name: str) -> None:
    shown = printable(name)
    assert len(shown.splitlines()) <= 1 and not any(unicodedata.category(one) in ("Cc", "Cs") for one in shown)
    assert printable(shown) == shown
    assert printable_lines(name).count("\n") == name.count("\n")


@given(NASTY)
def test_every_text_fits_every_encoding(name: str) -> None:
    for encoding in ("ascii", "latin-1", "cp1252", "utf-8"):
        name.encode(encoding, ENCODING_ERRORS)
        name.encode(encoding, ENCODING_BYTES)


def test_data_keep_a_files_bytes() -> None:
    assert "caf\udce9 кот".encode("utf-8", ENCODING_BYTES) == b"caf\xe9 \xd0\xba\xd0\xbe\xd1\x82"
    assert "кот".encode("ascii", ENCODING_BYTES) == b"\\u043a\\u043e\\u0442"
    assert "0.5 ±0.1…".encode("ascii", ENCODING_ERRORS) == b"0.5 +-0.1..."


def test_log_lines_obey_too() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    handler.handle(logging.makeLogRecord({"name": "library", "msg": "left out: %s", "args": ("a\x1b[2J",)}))
    assert stream.getvalue() == "left out: a\\x1b[2J\n"


def test_a_message_of_tlsearch_reads_as_other_output_does_and_a_library_s_names_it() -> None:
    formatter = PrintableFormatter("%(levelname)s %(name)s: %(message)s")

    def line(name: str) -> str:
        return formatter.format(logging.LogRecord(name, logging.WARNING, "", 0, "trial %d: slow", (3,), None))

    assert line("tlsearch.app.combined.members") == "warning: trial 3: slow"
    assert line("mlflow.store") == "WARNING mlflow.store: trial 3: slow"
