"""``--help``: commands in the order of work, values that say what they are, flags without a value, at 80 columns."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
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


def test_a_flag_still_is_one() -> None:
    code = "from tlsearch.cli import main; import sys; sys.argv = ['tlsearch', '--version']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.match(r"\d+\.", done.stdout)


def test_a_missing_argument_is_named() -> None:
    done = CliRunner().invoke(app, ["check"])
    assert done.exit_code == 2 and "FILE" in done.output
