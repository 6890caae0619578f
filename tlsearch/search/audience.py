"""Tells the observers of a search what has happened; none of them can end it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tlsearch.types import Decision, EpochReport, SearchObserver, TrialConfig, TrialOutcome

logger = logging.getLogger(__name__)


class Audience:
    """All observers as one; called after the study has been written, in order, on the driver's thread."""

    def __init__(self, observers: Sequence[SearchObserver]) -> None:
        self._observers = tuple(observers)

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """A trial starts, or goes on after a resume."""
        for observer in self._observers:
            try:
                observer.trial_started(number, config)
            except Exception:
                _log(observer, number)

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """An epoch's report and its answer are in the study."""
        for observer in self._observers:
            try:
                observer.trial_reported(number, report, decision)
            except Exception:
                _log(observer, number)

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """A trial's end is in the study."""
        for observer in self._observers:
            try:
                observer.trial_ended(number, outcome)
            except Exception:
                _log(observer, number)


def _log(observer: SearchObserver, number: int) -> None:
    logger.exception("observer %s failed at trial %d; the search goes on", type(observer).__name__, number)
