"""What all commands share: exit codes, errors without a traceback, Ctrl-C, consoles."""

from __future__ import annotations

import errno
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from tlsearch.core.errors import SpaceError, TlsearchError, UserError
from tlsearch.core.printable import PrintableFormatter
from tlsearch.core.secrets import mask_tree
from tlsearch.core.text import plural
from tlsearch.display.console import Console
from tlsearch.display.interrupts import EXIT_INTERRUPTED

EXIT_FAILED = 1
EXIT_USER = 2

_FULL = "make room, or make the disk writable, and try again"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _FULL,
    errno.EACCES: "let this user read and write it, or name another",
    errno.EPERM: "let this user read and write it, or name another",
    errno.ENAMETOOLONG: "give a shorter path",
}
_NO_TEMPORARY = "No usable temporary directory"  # tempfile
_NO_HOME = "determine home directory"  # pathlib, wherever a library asks it

out = Console(stderr=False)
err = Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs."""
    sys.stdout.write(json_text(value))


def json_text(value: Any) -> str:
    """One JSON document in ASCII, so that it fits every encoding; secrets masked."""
    return json.dumps(mask_tree(json.loads(json.dumps(value, default=str))), indent=2) + "\n"


@contextmanager
def shown_errors(*, as_json: bool = False) -> Iterator[None]:
    """Turns the package's own errors into a message and an exit code; anything else is a bug and is shown whole."""
    errors = logging.StreamHandler(sys.stderr)
    errors.setLevel(logging.WARNING)  # a search's own log takes more
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
        if isinstance(error, SpaceError):
            err.print(f"{plural(len(error.faults), 'error')}:")
        err.print(str(error))
        raise typer.Exit(code) from None
    except OSError as error:
        if _NO_TEMPORARY in str(error):
            _tell_failure(f"{error.strerror}: set TMPDIR to a folder that can be written", as_json=as_json)
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None or (error.errno in (errno.EACCES, errno.EPERM) and not error.filename):
            raise
        place = f"{error.filename}: " if error.filename else ""
        _tell_failure(f"{place}{error.strerror}: {remedy}", as_json=as_json)
    except RuntimeError as error:
        if _NO_HOME not in str(error):
            raise
        text = "this user has no home folder: set HOME, or TLSEARCH_CACHE_DIR and TLSEARCH_STATE_DIR, to a folder"
        _tell_failure(text, as_json=as_json)


def _tell_failure(text: str, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"ok": False, "error": text, "exit_code": EXIT_FAILED})
    err.print(text)
    raise typer.Exit(EXIT_FAILED) from None
