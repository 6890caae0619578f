"""Starts an own Ray beside the driver's checks, since it takes seconds of waiting; ``connected`` takes it over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

Start = Callable[[], Any]

logger = logging.getLogger(__name__)
_begun: list[Future[Any]] = []  # at most one: the start that nobody has taken over yet


@contextmanager
def begun_ahead(start: Start, shutdown: Callable[[], object]) -> Iterator[None]:
    """Calls ``start`` on another thread while the body runs, and ``shutdown`` after it where nobody took that over.

    Args:
        start: Starts Ray; its error is raised where it is taken over, and is of no account elsewhere.
        shutdown: Ends what ``start`` began.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ray-start") as pool:
        _begun.append(pool.submit(start))
        try:
            yield
        finally:
            if (left := take_begun()) is not None and left.exception() is None:
                shutdown()


def take_begun() -> Future[Any] | None:
    """The start that runs ahead, which is the caller's from then on; None where there is none."""
    return _begun.pop() if _begun else None
