"""The command line: parse, call app, print, exit code."""

from __future__ import annotations

import atexit
import gc
import sys


def main() -> None:
    """Entry point of the ``tlsearch`` command."""
    from tlsearch.cli.interrupts import run_interruptible

    run_interruptible(_main)


def _main() -> None:
    atexit.register(gc.freeze)  # Python would search all of torch and MLflow for garbage before it ends: over a second
    from tlsearch.imports import leave_current_folder

    try:
        leave_current_folder()
    except FileNotFoundError:
        sys.exit("the current folder does not exist any more: change to another one and try again")
    from tlsearch.cli.streams import exit_code, open_streams
    from tlsearch.folders import lend_home

    output = open_streams()
    lend_home()
    from tlsearch.cli import (  # noqa: F401
        commands_cache,
        commands_check,
        commands_cluster,
        commands_compare,
        commands_control,
        commands_models,
        commands_production,
        commands_results,
        commands_run,
        commands_searches,
    )
    from tlsearch.cli.console import show_all_texts
    from tlsearch.cli.root import app

    show_all_texts()
    try:
        app(args=sys.argv[1:], prog_name="tlsearch")
    except SystemExit as end:
        sys.exit(exit_code(output, end.code))  # type: ignore[arg-type]  # what SystemExit takes
