"""A search that is executed with what it shows: a line for each pass of a screen, then the live table of its trials."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext

import rich.console

from tlsearch.app.catalog.stored import search_log
from tlsearch.app.searches.execute import SearchEnd, execute
from tlsearch.app.searches.prepare import Prepared
from tlsearch.core.types import ProbedBackbone, Screen, ScreenObserver
from tlsearch.display.interrupts import interruptible
from tlsearch.display.live_progress import Progress
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


def execute_shown(
    prepared: Prepared, progress: Progress | None, *, stopping: str = "stopping", stop: threading.Event | None = None
) -> SearchEnd:
    """Executes a search with its log; the first Ctrl-C stops it within seconds, a second one ends at once.

    Args:
        progress: The search's display; None shows nothing.
        stopping: What it says after the first Ctrl-C.
        stop: Ends the search as Ctrl-C does, where the caller sets it.
    """
    stop = stop or threading.Event()

    def on_interrupt() -> None:
        if progress is not None:
            progress.note(stopping)

    observers = () if progress is None else (progress,)
    lines = None if progress is None else ScreenLines(progress.console)
    with search_log(prepared.entry), interruptible(stop, on_interrupt), progress or nullcontext():
        return execute(prepared, observers=observers, screen_observer=lines, stop=stop)
