"""The command line: parse, call app, print, exit code."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the ``tlsearch`` command."""
    from tlsearch.cli import commands_check, commands_models, commands_results, commands_run  # noqa: F401
    from tlsearch.cli.root import app

    app(args=sys.argv[1:], prog_name="tlsearch")
