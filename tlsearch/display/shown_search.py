"""A search that is executed with what it shows: a line for each pass of a screen, then the live table of its trials."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import rich.console

from tlsearch.app.catalog.stored import search_log
from tlsearch.app.searches.execute import SearchEnd, execute
from tlsearch.app.searches.prepare import Prepared
from tlsearch.core.types import ProbedBackbone, Screen, ScreenObserver
from tlsearch.display.console import Console
from tlsearch.display.interrupts import interruptible
from tlsearch.display.live_progress import show_progress
from tlsearch.results.leaderboard.screen_notes import screen_sentences

_QUIET_S = 10.0  # how often a line is printed where there are many backbones
_FEW = 20


class ScreenLines(ScreenObserver):
    """Prints to a console, above a live table where there is one."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self._printed = time.monotonic()

    def backbone_probed(self, one: ProbedBackbone, done: int, total: int) -> None:
        """The pass of a backbone has been recorded."""
        now = time.monotonic()
        if total > _FEW and done < total and now - self._printed < _QUIET_S:
            return
        self._printed = now
        found = one.error or f"a solved head on its features has an accuracy of {one.accuracy or 0:.4f}"
        self._print(f"[{done}/{total} screened] {one.backbone}: {found}")

    def screened(self, screen: Screen) -> None:
        """Which backbones the search goes on with has been recorded."""
        for sentence in screen_sentences(screen):
            self._print(sentence)
        if screen.pruned:
            self._print(f"pruned: {', '.join(screen.pruned)}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def execute_shown(prepared: Prepared, *, progress: bool = True, name: Callable[[int], str] = str) -> SearchEnd:
    """Executes a search; the first Ctrl-C stops it within seconds, a second one ends at once.

    Args:
        progress: Show a live table on stderr, or in the cell of a notebook.
        name: What a trial is called in it.
    """
    with ExitStack() as stack:
        console = Console(stderr=True) if progress else None
        shown = show_progress(prepared, console, name=name) if console else None
        lines = ScreenLines(console) if console else None
        stack.enter_context(search_log(prepared.entry))
        stop = stack.enter_context(_interruptible(lambda: shown.note("stopping") if shown else None))
        if shown:
            stack.enter_context(shown)
        return execute(prepared, observers=(shown,) if shown else (), screen_observer=lines, stop=stop)


@contextmanager
def _interruptible(on_interrupt: Callable[[], None]) -> Iterator[threading.Event]:
    """As ``interruptible``; in a thread that receives no signals an event that only the caller sets."""
    if threading.current_thread() is threading.main_thread():
        with interruptible(on_interrupt) as stop:
            yield stop
    else:
        yield threading.Event()
