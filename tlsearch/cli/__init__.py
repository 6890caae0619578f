"""The command line: parse, call app, print, exit code."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the ``tlsearch`` command."""
    from tlsearch.cli.commands import app

    app(args=sys.argv[1:])
