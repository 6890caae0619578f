"""What a start does side by side: Ray comes up while torch is imported."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from tlsearch.imports import quick_import

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
