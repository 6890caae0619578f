"""Ends a running search from another process: a request in its folder, which the search's own process heeds.

A request names the process it is meant for, so one that came too late ends no later start.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tlsearch.core.codec import read_json
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.layout import SearchFolder
from tlsearch.search.study.lock import Holder, holder_of, runner_of

logger = logging.getLogger(__name__)

_POLL_S = 0.25


@contextmanager
def heeding_stop_requests(folder: SearchFolder, holder: Holder, stop: threading.Event) -> Iterator[None]:
    """Sets ``stop`` within a second of a request, while the body runs.

    Args:
        folder: The search's.
        holder: This process, as its lock names it.
        stop: What Ctrl-C sets too.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            if _requested(folder.stop_request) == holder.plain():
                logger.info("a stop was asked for from another process")
                stop.set()
                return

    thread = threading.Thread(target=watch, name="stop-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        folder.stop_request.unlink(missing_ok=True)


def request_stop(directory: Path) -> Holder | None:
    """Asks the process that runs a search to end it; returns at once.

    Args:
        directory: The search's folder.

    Returns:
        The process that was asked; None where the search does not run.

    Raises:
        StorageError: The folder cannot be written.
    """
    folder = SearchFolder(root=directory)
    holder = runner_of(folder.lock)
    if holder is None:
        return None
    try:
        write_atomically(folder.stop_request, json.dumps(holder.plain()))
    except OSError as error:
        raise StorageError(f"a stop is asked for by a file in {directory}, which failed: {error.strerror}") from error
    return holder


def wait_until_stopped(directory: Path, holder: Holder, timeout_s: float) -> bool:
    """Waits until that process has let go of the search, its last records sent; False where it has not in time."""
    lock, deadline = SearchFolder(root=directory).lock, time.monotonic() + timeout_s
    while (now := holder_of(lock)) is not None and replace(now, command=holder.command) == holder:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _requested(path: Path) -> object:
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
