"""The background thread that sends entries in order, and keeps them in memory while MLflow is away."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from tlsearch.tracking.mlflow_database import Away, Refused
from tlsearch.tracking.sink.entries import Entry

logger = logging.getLogger(__name__)

_CHUNK = 200  # entries sent as one unit; a failed unit is sent again as a whole
_GATHER_S = 0.5  # what comes so soon is sent together: entries of one trial share MLflow's calls
_MAX_LOGGED = 5  # refusals logged one by one


class Worker:
    """Sends entries through ``send`` on one daemon thread, from ``start`` on.

    Unsent entries wait in memory, in order. They need no copy on disk: the study holds all they say, and a later
    process sends it from there.

    Args:
        send: Sends a run of entries; raises Away or Refused; sending twice does no harm.
        first_retry_s: Wait after the first failure; doubled after each further one.
        last_retry_s: The longest wait.
    """

    def __init__(self, send: Callable[[Sequence[Entry]], None], *, first_retry_s: float, last_retry_s: float) -> None:
        self._send = send
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._changed = threading.Condition()
        self._unsent: deque[Entry] = deque()
        self._retry_at: float | None = None  # None while the store answers
        self._wait_s = first_retry_s
        self._num_refused = 0
        self._closing = False
        self._num_flushing = 0  # threads that wait until all is sent
        self._given_up = False
        self._thread: threading.Thread | None = None

    def put(self, *entries: Entry) -> None:
        """Takes entries to send and returns at once."""
        with self._changed:
            if self._given_up:
                return
            if self._closing:
                raise RuntimeError("the tracker is closed")
            self._unsent.extend(entries)
            self._changed.notify_all()

    def start(self, *first: Entry) -> None:
        """Begins to send, these entries before all that wait."""
        with self._changed:
            self._unsent.extendleft(reversed(first))
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tlsearch-tracking", daemon=True)
            self._thread.start()

    def give_up(self) -> None:
        """Takes and sends nothing any more: the store cannot be used."""
        with self._changed:
            self._given_up = True
            self._unsent.clear()

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything is sent or the store is away; whether everything is sent."""
        with self._changed:
            if self._thread is not None:
                self._num_flushing += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._unsent or self._retry_at is not None, timeout_s)
                self._num_flushing -= 1
            return not self._unsent

    def close(self, timeout_s: float) -> int:
        """Sends what is left, for at most ``timeout_s``; returns how many entries stay unsent.

        A store that is away is asked once more and not waited for.
        """
        with self._changed:
            self._closing = True
            if self._unsent:
                self._start()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:
            if self._num_refused > _MAX_LOGGED:
                logger.warning("MLflow did not take %d records in all", self._num_refused)
            return len(self._unsent)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._retry_at is None:
                    self._changed.wait_for(lambda: self._closing or self._unsent)
                    self._changed.wait_for(self._has_gathered, _GATHER_S)
                else:
                    self._changed.wait_for(lambda: self._closing, max(0.0, self._retry_at - time.monotonic()))
                if self._closing and not self._unsent:
                    return
                last_try = self._closing
                chunk = list(islice(self._unsent, _CHUNK))
            if not self._deliver(chunk) and last_try:
                return

    def _has_gathered(self) -> bool:
        return self._closing or self._num_flushing > 0 or len(self._unsent) >= _CHUNK

    def _deliver(self, chunk: Sequence[Entry]) -> bool:
        """Sends one unit; whether the store answered."""
        try:
            self._send(chunk)
        except Away as away:
            self._note_away(away)
            return False
        except Exception as error:
            if len(chunk) > 1:  # one bad entry must not take the others with it
                return all(self._deliver([entry]) for entry in chunk)
            self._note_lost(chunk[0], error)
        self._note_sent(len(chunk))
        return True

    def _note_lost(self, entry: Entry, error: Exception) -> None:
        if not isinstance(error, Refused):  # a bug must cost its own entry only, never the search's record
            logger.error("a %s could not be sent to MLflow", type(entry).__name__, exc_info=error)
            return
        self._num_refused += 1
        if self._num_refused <= _MAX_LOGGED:
            logger.warning("MLflow did not take a %s: %s", type(entry).__name__, error)

    def _note_away(self, away: Away) -> None:
        with self._changed:
            if self._retry_at is None:
                self._wait_s = self._first_retry_s
                logger.warning("%s; the search goes on, its records wait in memory", away)
            self._retry_at = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, self._last_retry_s)
            self._changed.notify_all()

    def _note_sent(self, num_sent: int) -> None:
        with self._changed:
            for _ in range(num_sent):
                self._unsent.popleft()
            if self._retry_at is not None:
                logger.warning("MLflow answers again; %d records are being sent", num_sent + len(self._unsent))
            self._retry_at = None
            self._changed.notify_all()
