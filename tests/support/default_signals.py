"""The signals of a program under test, whatever the tests themselves were started to ignore."""

from __future__ import annotations

import signal


def default_signals() -> None:
    """For ``preexec_fn``: under nohup, or in the background of a shell, tests and their children ignore some."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
