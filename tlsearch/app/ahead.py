"""What a start does side by side: Ray comes up while torch is imported, workers come up while MLflow is opened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module

from tlsearch.imports import quick_import
from tlsearch.search.audience import Audience
from tlsearch.types import Decision, EpochReport, SearchObserver, TrialConfig, TrialOutcome

# Slow to import, and needed before the first trial whatever the search.
_ROOMS = ("tlsearch.data", "tlsearch.model", "tlsearch.app.run", "tlsearch.tracking.store")


@contextmanager
def ray_ahead(address: str, *, step: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """An own Ray for the body, started now: its processes take seconds, in which this one imports what comes next.

    A cluster is connected to when the search begins, after it has been looked at.

    Args:
        step: Hears what is waited for.

    Raises:
        ClusterError: Ray cannot be started.
    """
    if address != "local":
        step("loading PyTorch")
        yield
        return
    step("starting Ray on this machine")
    from tlsearch.search.connect import connected

    with connected(address, meanwhile=threading.Thread(target=_import_rooms, daemon=True).start):
        step("loading PyTorch")
        yield


def _import_rooms() -> None:
    with suppress(ImportError):  # the main thread imports them again and says what is missing
        for room in _ROOMS:
            quick_import(room)
        import_module("tlsearch.tracking.store").quiet_mlflow()  # imports mlflow, as the tracker will


class UntilReady:
    """Keeps what observers should hear until something that runs beside the search is done, then passes it on in order.

    Args:
        observers: Hear everything, the calls that were kept first.
        prepare: Runs in a thread of its own; what it raises comes out of ``finish``.
        failed: Called at once where it raises.
    """

    def __init__(
        self, observers: Sequence[SearchObserver], prepare: Callable[[], None], *, failed: Callable[[], None]
    ) -> None:
        self._audience = Audience(observers)  # one that fails keeps nothing from the others
        self._prepare, self._failed = prepare, failed
        self._kept: list[Callable[[SearchObserver], None]] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="search-start", daemon=True)
        self._thread.start()

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """See ``SearchObserver``."""
        self._hear(lambda observer: observer.trial_started(number, config))

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """See ``SearchObserver``."""
        self._hear(lambda observer: observer.trial_reported(number, report, decision))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """See ``SearchObserver``."""
        self._hear(lambda observer: observer.trial_ended(number, outcome))

    def finish(self) -> None:
        """Waits until it is ready and passes the rest on; raises what the preparation raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._pass_on()

    def _run(self) -> None:
        try:
            self._prepare()
        except BaseException as error:  # raised again by finish, on the thread that can handle it
            self._error = error
            self._failed()

    def _hear(self, call: Callable[[SearchObserver], None]) -> None:
        self._kept.append(call)
        if not self._thread.is_alive() and self._error is None:
            self._pass_on()

    def _pass_on(self) -> None:
        kept, self._kept = self._kept, []
        for call in kept:
            call(self._audience)
