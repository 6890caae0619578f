"""Runs a prepared search from Python, shown on a terminal or in a notebook; Ctrl-C leaves it resumable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tlsearch.app.catalog.stored import search_log
from tlsearch.app.searches.execute import SearchEnd, execute
from tlsearch.app.searches.prepare import Prepared
from tlsearch.cli.interrupts import interruptible
from tlsearch.cli.session import err
from tlsearch.cli.tables.live_progress import show_progress


def execute_shown(prepared: Prepared, *, progress: bool = True, name: Callable[[int], str] = str) -> SearchEnd:
    """Executes a search; the first Ctrl-C stops it within seconds, a second one ends at once.

    Args:
        progress: Show a live table on stderr, or in the cell of a notebook.
        name: What a trial is called in it.
    """
    with ExitStack() as stack:
        shown = show_progress(prepared, err, name=name) if progress else None
        stack.enter_context(search_log(prepared.entry))
        stop = stack.enter_context(_interruptible(lambda: shown.note("stopping") if shown else None))
        if shown:
            stack.enter_context(shown)
        return execute(prepared, observers=(shown,) if shown else (), stop=stop)


@contextmanager
def _interruptible(on_interrupt: Callable[[], None]) -> Iterator[threading.Event]:
    """As ``interruptible``; in a thread that receives no signals an event that only the caller sets."""
    if threading.current_thread() is threading.main_thread():
        with interruptible(on_interrupt) as stop:
            yield stop
    else:
        yield threading.Event()
