"""The page of all commands is what ``--help`` shows, and each command has an example that it would take."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.cli.help import EXAMPLES
from tlsearch.cli.root import app

DOCS = Path(__file__).parents[3] / "docs"
ROOT: Any = typer.main.get_command(app)
CONTEXT = ROOT.make_context("tlsearch", [], resilient_parsing=True)


def test_the_page_is_up_to_date() -> None:
    written = runpy.run_path(str(DOCS / "write_references.py"))["command_reference"]()
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == written, "write it again: make reference"


@pytest.mark.parametrize("name", ROOT.list_commands(CONTEXT))
def test_each_command_has_an_example_that_it_takes(name: str) -> None:
    program, called, *arguments = shlex.split(EXAMPLES[name].split(" > ")[0])
    assert (program, called) == ("tlsearch", name)
    command = ROOT.get_command(CONTEXT, name)
    known = {switch for param in command.params for switch in param.opts}
    used = {one for one in arguments if one.startswith("-")}
    assert used <= known, used - known
    assert command.epilog == f"Example: {EXAMPLES[name]}"
