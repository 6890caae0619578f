"""Ctrl-C, SIGTERM and the end of the terminal interrupt a command alike, from its first import to its last line."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_INTERRUPTED = 130
_AGAIN_S = 0.05


def ending_signals() -> list[signal.Signals]:
    """Those that interrupt; SIGHUP that is ignored, as under ``nohup``, stays so."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


def run_interruptible(command: Callable[[], object]) -> None:
    """Runs a command; ends the program with code 130 where a signal interrupts it, whatever that leads to.

    An interrupt in the middle of an import may come out of it as another error.
    """
    seen: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    def again(lost: sys.UnraisableHookArgs) -> None:
        """An interrupt that meets a destructor or a callback is lost there, so it comes once more."""
        if isinstance(lost.exc_value, KeyboardInterrupt) and seen:
            threading.Timer(_AGAIN_S, os.kill, (os.getpid(), seen[-1])).start()
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = again
    for one in ending_signals():
        signal.signal(one, handle)
    try:
        command()
    except SystemExit as end:
        if not (seen and end.code):
            raise
    except BaseException:
        if not seen:
            raise
        with suppress(OSError):  # the terminal may be gone
            sys.stderr.write("interrupted\n")
    finally:
        for one in ending_signals():
            signal.signal(one, signal.SIG_IGN)  # nothing is left to interrupt, and files are still to be removed
    if seen:
        sys.exit(EXIT_INTERRUPTED)


@contextmanager
def interruptible(stop: threading.Event, on_interrupt: Callable[[], None]) -> Iterator[None]:
    """The first signal sets the event; a second Ctrl-C or SIGTERM ends the program.

    Only the main thread receives signals: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number in (signal.SIGINT, signal.SIGTERM):  # a terminal that closes says so twice
            raise KeyboardInterrupt
        stop.set()
        on_interrupt()

    before = {number: signal.signal(number, handle) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
