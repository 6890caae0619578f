"""What all commands share: exit codes, errors without a traceback, Ctrl-C, consoles."""

from __future__ import annotations

import errno
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from tlsearch.cli.console import Console
from tlsearch.errors import ConfigError, TlsearchError, UserError
from tlsearch.printable import PrintableFormatter

EXIT_FAILED = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 130

out = Console(stderr=False)
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs."""
    sys.stdout.write(json_text(value))


def json_text(value: Any) -> str:
    """One JSON document in ASCII, so that it fits every encoding."""
    return json.dumps(value, indent=2, default=str) + "\n"


@contextmanager
def told_errors(*, as_json: bool = False) -> Iterator[None]:
    """Turns the package's own errors into a message and an exit code; anything else is a bug and is shown whole."""
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.WARNING)  # a search's own log takes more (app.logbook)
    errors.setFormatter(PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[errors])
    try:
        yield
    except KeyboardInterrupt:
        if as_json:
            print_json({"ok": False, "error": "interrupted", "exit_code": EXIT_INTERRUPTED})
        err.print("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except TlsearchError as error:
        code = EXIT_USER if isinstance(error, UserError) else EXIT_FAILED
        if as_json:
            print_json({"ok": False, "error": str(error), "exit_code": code})
        if isinstance(error, ConfigError):
            count = len(error.faults)
            err.print(f"{count} fault{'s' if count != 1 else ''}:", markup=False)
        err.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(code) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        place = f"{error.filename}: " if error.filename else ""
        told = f"{place}{error.strerror}: make room, or make the disk writable, and try again"
        if as_json:
            print_json({"ok": False, "error": told, "exit_code": EXIT_FAILED})
        err.print(told, markup=False, soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from None


@contextmanager
def interruptible(on_interrupt: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; a second Ctrl-C ends the program at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        on_interrupt()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
