"""Passes what happens in a search on to its observers; none of them can end it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tlsearch.core.types import Decision, EpochReport, SearchObserver, TrialConfig, TrialOutcome

logger = logging.getLogger(__name__)


class Dispatcher(SearchObserver):
    """All observers as one: called in order, on the driver's thread, after the study has been written."""

    def __init__(self, observers: Sequence[SearchObserver]) -> None:
        self._observers = tuple(observers)

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """A trial starts, or continues after a resume."""
        self._call(number, lambda observer: observer.trial_started(number, config))

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """An epoch's report and its decision are in the study."""
        self._call(number, lambda observer: observer.trial_reported(number, report, decision))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """A trial's end is in the study."""
        self._call(number, lambda observer: observer.trial_ended(number, outcome))

    def _call(self, number: int, event: Callable[[SearchObserver], None]) -> None:
        for observer in self._observers:
            try:
                event(observer)
            except Exception:
                name = type(observer).__name__
                logger.exception("observer %s failed at trial %d; the search goes on", name, number)
