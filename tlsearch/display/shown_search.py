"""A search that is executed with what it shows: a line for each pass of a screen, then the live table of its trials."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import rich.console

from tlsearch.app.catalog.screen_file import narrowed
from tlsearch.app.catalog.stored import read_record, search_log
from tlsearch.app.searches.execute import SearchEnd, execute
from tlsearch.app.searches.prepare import Prepared
from tlsearch.app.views.status import trial_doing
from tlsearch.core.types import ProbedBackbone, Screen, ScreenObserver
from tlsearch.display.console import Console
from tlsearch.display.interrupts import interruptible
from tlsearch.display.live_progress import Progress
from tlsearch.results.leaderboard.screen_notes import screen_sentences

if TYPE_CHECKING:
    from tlsearch.app.checks.planning import ForecastBeside

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


def show_progress(prepared: Prepared, console: Console | None = None, *, name: Callable[[int], str] = str) -> Progress:
    """The display of a search that is about to run, with what its earlier starts have done.

    Args:
        console: Where to; in a notebook its cell, by default standard error.
        name: What a trial is called.
    """
    progress = Progress(
        console or Console(stderr=True),
        prepared.file.search,
        address=prepared.address,
        doing=partial(trial_doing, prepared.entry.directory),
        name=name,
        forecast=_forecast_of(prepared),
    )
    if prepared.resumed:
        progress.restore(read_record(prepared.entry))
    return progress


def _forecast_of(prepared: Prepared) -> ForecastBeside | None:
    """The forecast of a search that begins on this machine; what other machines take is not known here."""
    if prepared.resumed or prepared.address != "local":
        return None
    from tlsearch.app.checks.planning import ForecastBeside

    return ForecastBeside(prepared.file, partial(narrowed, prepared.entry, prepared.space), prepared.index)
