"""The steps before a search has begun."""

from __future__ import annotations

import io

import pytest
import typer
from rich.console import Console

from tlsearch.cli.session import shown_errors
from tlsearch.display import console as steps
from tlsearch.display.console import Steps


def test_without_a_terminal_each_step_is_a_line() -> None:
    text = io.StringIO()
    with Steps(Console(file=text, width=200)) as step:
        step("checking space.yaml")
        step("starting Ray")
        assert text.getvalue() == "checking space.yaml\nstarting Ray\n"
    assert text.getvalue() == "checking space.yaml\nstarting Ray\n"


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_plain_terminals_get_no_colours(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable)
    text = io.StringIO()
    with Steps(Console(file=text, force_terminal=True, width=80)) as step:
        step("starting Ray")
    assert "starting Ray" in text.getvalue() and "\x1b[3" not in text.getvalue()
    if variable[0] == "TERM":
        assert text.getvalue() == "starting Ray\n"


def test_a_terminal_shows_the_step_at_once_and_keeps_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(steps.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    with Steps(Console(file=text, force_terminal=True, width=80)) as step:
        step("checking a[b].yaml")
        assert "checking a[b].yaml  0s" in text.getvalue()  # before anything has been done
        step("starting Ray")
        now[0] += 12
    assert "starting Ray  12s" in text.getvalue().splitlines()[-1]
    assert "checking a[b].yaml  0s\n" not in text.getvalue()


def test_an_error_ends_the_step() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80)
    with pytest.raises(ValueError, match="x"), Steps(console) as step:
        step("starting Ray")
        raise ValueError("x")
    assert console._live_stack == []


def test_ctrl_c_before_the_search_begins_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, shown_errors():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
