"""``--help``: commands in the order of work, values that say what they are, flags without a value, at 80 columns."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import SearchEntry, register
from tlsearch.cli.help import PANELS
from tlsearch.cli.root import app

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def _help(*command: str) -> str:
    done = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, [*command, "--help"])
    assert done.exit_code == 0, done.output
    return done.output


def test_commands_stand_in_the_order_of_work() -> None:
    text = _help()
    shown = [name for name in re.findall(r"^│ ([a-z-]+)  ", text, re.MULTILINE) if name in COMMANDS]
    order = [name for names in PANELS.values() for name in names]
    assert shown == [name for name in order if name in COMMANDS]
    assert shown[:5] == ["demo", "init", "check", "plan", "run"]
    assert all(f"─ {panel} ─" in text for panel in PANELS)


def test_every_command_has_its_place() -> None:
    assert set(COMMANDS) <= {name for names in PANELS.values() for name in names}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_values_have_plain_names_and_flags_have_none(command: str) -> None:
    text = _help(*([command] if command else []))
    assert not re.search(r"<[a-z]", text) and "bool" not in text and "[[" not in text and "list[" not in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_no_word_of_a_help_is_taken_for_markup(command: str) -> None:
    one = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    for text in filter(None, (one.help, *(getattr(param, "help", None) for param in one.params))):
        assert Text.from_markup(text).plain == text


def test_a_flag_still_is_one() -> None:
    code = "from tlsearch.cli import main; import sys; sys.argv = ['tlsearch', '--version']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.match(r"\d+\.", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_options_and_searches(tmp_path: Path, shell: str) -> None:
    entry = SearchEntry(
        search_id="shapes-1",
        experiment="shapes",
        directory=str(tmp_path / "shapes-1"),
        source="",
        tracking_uri="",
        metric="val_accuracy",
        created=0.0,
    )
    entry.path.mkdir()
    register(entry)
    for line, word in [
        ("ru", "run"),
        ("run --tri", "--trials"),
        ("resume sh", "shapes-1"),
        ("export a --form", "--format"),
    ]:
        typed, last = f"tlsearch {line}", line.split()[-1]
        asked = {"_TLSEARCH_COMPLETE": f"complete_{shell}", "COMP_WORDS": typed, "COMP_CWORD": str(len(line.split()))}
        asked |= {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        asked |= {"_TYPER_COMPLETE_WORD_TO_COMPLETE": last}
        assert word in CliRunner(env=asked).invoke(app, [], prog_name="tlsearch").output, line


def test_a_missing_argument_is_named() -> None:
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 2 and "FILE" in done.output
