"""Numbers, counts and durations as people read them."""

from __future__ import annotations

import math
import shlex

import pytest

from tlsearch.core.text import NumberForm, Value, about_s, agree, command, first_line, format_s, last_line, plural


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.001, 0.0246, 0.03], ["1.00e-03", "2.46e-02", "3.00e-02"]),  # never 1.0e-03 beside 0.0246
        ([0.0, 1e-4], ["0", "1.0e-04"]),  # never 0.0e+00
        ([0.0, 0.0], ["0", "0"]),
        ([0.0, 0.1], ["0", "0.1"]),
        ([0.9, 0.99, 0.999], ["0.900", "0.990", "0.999"]),
        ([0.123456, 0.5], ["0.12", "0.50"]),
        ([1e-6, 3.123456e-4], ["1.0e-06", "3.1e-04"]),
        ([0.05, 20.0], ["0.05", "20.00"]),
        ([1e5, 10.0], ["1.0e+05", "1.0e+01"]),
        ([-0.5, 0.25], ["-0.50", "0.25"]),
        (["a", 2, None, 0.25], ["a", "2", "none", "0.25"]),
        ([math.nan, math.inf, 0.5], ["nan", "inf", "0.5"]),
    ],
)
def test_a_column_has_one_form(values: list[Value], texts: list[str]) -> None:
    form = NumberForm.of(values)
    assert [form.text(value) for value in values] == texts


def test_counts() -> None:
    assert [plural(n, "trial") for n in (0, 1, 2, 1200)] == ["0 trials", "1 trial", "2 trials", "1,200 trials"]
    assert plural(1, "entry", "entries") == "1 entry" and plural(2, "entry", "entries") == "2 entries"
    assert agree(1, "is", "are") == "is" and agree(0, "is", "are") == "are"


def test_durations() -> None:
    assert [format_s(s) for s in (0.4, 5, 59.6, 65, 3725)] == ["0s", "5s", "1m00s", "1m05s", "1h02m"]
    assert [format_s(s, tenths=True) for s in (0.04, 1.7, 3, 9.97, 65)] == ["0.0s", "1.7s", "3.0s", "10s", "1m05s"]


def test_estimates_have_the_precision_of_a_guess() -> None:
    seconds = (1, 33, 58, 130, 715, 1250, 3500, 5000, 50000, 2e5)
    assert [about_s(s).removeprefix("about ") for s in seconds] == [
        "5 s",
        "35 s",
        "1 min",
        "2 min",
        "12 min",
        "20 min",
        "1 h",
        "1.5 h",
        "14 h",
        "2 days",
    ]


def test_a_command_can_be_pasted_into_a_shell_whatever_its_names() -> None:
    assert command("resume", "emoji-1", "--trials", "+12") == "`tlsearch resume emoji-1 --trials +12`"
    for name in ("my search", "it's", "a;rm -rf ~", "$(id)", "`id`", "a\\b", "a&b", "é"):
        assert shlex.split(command("stop", name)[1:-1]) == ["tlsearch", "stop", name]


def test_the_first_and_the_last_line_of_an_error_hold_something() -> None:
    error = ValueError("\n  first \nsecond\n\n")
    assert (first_line(error), last_line(error)) == ("first", "second")
    assert (first_line(KeyError()), last_line(KeyError())) == ("KeyError", "KeyError")
    assert last_line(" \n", "nothing") == "nothing"
