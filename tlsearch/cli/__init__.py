"""The command line: parse, call app, print, exit code."""

from __future__ import annotations

import atexit
import gc
import sys


def main() -> None:
    """Entry point of the ``tlsearch`` command."""
    from tlsearch.display.interrupts import run_interruptible

    run_interruptible(_main)


def _main() -> None:
    atexit.register(gc.freeze)  # Python would search all of torch and MLflow for garbage before it ends: over a second
    from tlsearch.core.imports import leave_current_folder, quick_import

    try:
        leave_current_folder()
    except FileNotFoundError:
        sys.exit("the current folder does not exist any more: change to another one and try again")
    from tlsearch.cli.streams import exit_code, open_streams
    from tlsearch.core.user_folders import lend_home

    output = open_streams()
    lend_home()
    quick_import("tlsearch.cli.commands")  # its modules add their commands
    from tlsearch.cli.root import app
    from tlsearch.display.console import show_all_texts

    show_all_texts()
    try:
        app(args=sys.argv[1:], prog_name="tlsearch")
    except SystemExit as end:
        sys.exit(exit_code(output, end.code))  # type: ignore[arg-type]  # what SystemExit takes
