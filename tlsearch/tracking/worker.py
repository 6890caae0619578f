"""The background thread that sends entries in order, and waits with them while MLflow is away."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from tlsearch.errors import TlsearchError
from tlsearch.tracking.entries import Entry
from tlsearch.tracking.spool import Spool

logger = logging.getLogger(__name__)

_CHUNK = 200  # entries sent as one unit; a failed unit is sent again as a whole
_MAX_TOLD = 5  # refusals told one by one


class Away(TlsearchError):
    """The store does not answer now; what was to be sent stays."""


class Refused(TlsearchError):
    """The store answers, and will never take this entry."""


class Worker:
    """Sends entries through ``send`` on one daemon thread, which starts with the first entry.

    All that is unsent stays in memory in order; while the store is away it also lies in the spool,
    and what an earlier process left there is sent first.

    Args:
        send: Sends a run of entries; raises Away or Refused; sending twice does no harm.
        spool: Where entries wait.
        first_retry_s: Wait after the first failure; doubled after each further one.
        last_retry_s: The longest wait.
    """

    def __init__(
        self, send: Callable[[Sequence[Entry]], None], spool: Spool, *, first_retry_s: float, last_retry_s: float
    ) -> None:
        self._send = send
        self._spool = spool
        self._first_retry_s = first_retry_s
        self._last_retry_s = last_retry_s
        self._changed = threading.Condition()
        self._unsent: deque[Entry] = deque()
        self._num_spooled = 0  # how many at the front of the unsent ones lie in the spool too
        self._retry_at: float | None = None  # None while the store answers
        self._wait_s = first_retry_s
        self._num_refused = 0
        self._closing = False
        self._given_up = False
        self._thread: threading.Thread | None = None

    def put(self, *entries: Entry) -> None:
        """Takes entries to send and returns at once."""
        with self._changed:
            if self._given_up:
                return
            if self._closing:
                raise RuntimeError("the tracker is closed")
            self._start()
            self._unsent.extend(entries)
            self._changed.notify_all()

    def give_up(self) -> None:
        """Takes and sends nothing any more: the store cannot be used. What lies in the spool stays."""
        self._given_up = True

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything is sent or the store is away; whether everything is sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unsent or self._retry_at is not None, timeout_s)
            return not self._unsent

    def close(self, timeout_s: float) -> int:
        """Sends what is left, for at most ``timeout_s``; gives how many entries stay in the spool.

        A store that is away is asked once more and not waited for.
        """
        with self._changed:
            if not self._given_up and self._thread is None and self._spool.path.exists():
                self._start()
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:
            # The thread may hang in a call; what it holds is on the disk then, and idempotent.
            self._keep_on_disk()
            if self._num_refused > _MAX_TOLD:
                logger.warning("MLflow did not take %d records in all", self._num_refused)
            return len(self._unsent)

    def _start(self) -> None:
        if self._thread is None:
            self._unsent.extendleft(reversed(self._spool.load()))
            self._num_spooled = len(self._unsent)
            self._thread = threading.Thread(target=self._run, name="tlsearch-tracking", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work, self._patience_s())
                if self._closing and not self._unsent:
                    return
                if not self._is_due():
                    self._keep_on_disk()
                    continue
                last_try = self._closing
                chunk = list(islice(self._unsent, _CHUNK))
            answered = not chunk or self._deliver(chunk)
            if last_try and not answered:
                return

    def _has_work(self) -> bool:
        new = len(self._unsent) > self._num_spooled if self._retry_at is not None else bool(self._unsent)
        return self._closing or new

    def _patience_s(self) -> float | None:
        return None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def _is_due(self) -> bool:
        return self._closing or self._retry_at is None or time.monotonic() >= self._retry_at

    def _deliver(self, chunk: Sequence[Entry]) -> bool:
        """Sends one unit; whether the store answered."""
        try:
            self._send(chunk)
        except Away as away:
            self._note_away(away)
            return False
        except Refused as refused:
            if len(chunk) > 1:  # one bad entry must not take the others with it
                return all(self._deliver([entry]) for entry in chunk)
            self._num_refused += 1
            if self._num_refused <= _MAX_TOLD:
                logger.warning("MLflow did not take a %s: %s", type(chunk[0]).__name__, refused)
        except Exception:  # a bug must cost its own entries only, never the search's record
            if len(chunk) > 1:
                return all(self._deliver([entry]) for entry in chunk)
            logger.exception("a %s could not be sent to MLflow", type(chunk[0]).__name__)
        self._note_sent(len(chunk))
        return True

    def _note_away(self, away: Away) -> None:
        with self._changed:
            if self._retry_at is None:
                self._wait_s = self._first_retry_s
                logger.warning("%s; the search goes on, its records wait in %s", away, self._spool.path)
            self._retry_at = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, self._last_retry_s)
            self._keep_on_disk()
            self._changed.notify_all()

    def _note_sent(self, num_sent: int) -> None:
        with self._changed:
            for _ in range(num_sent):
                self._unsent.popleft()
            if self._retry_at is not None:
                logger.warning("MLflow answers again; %d records are being sent", num_sent + len(self._unsent))
            self._retry_at = None
            self._num_spooled = max(0, self._num_spooled - num_sent)
            if not self._unsent:
                self._spool.replace([])
            self._changed.notify_all()

    def _keep_on_disk(self) -> None:
        new = list(islice(self._unsent, self._num_spooled, None))
        try:
            self._spool.append(new)
        except OSError as error:  # the study still holds everything: `resume` sends it again
            logger.warning("the spool %s cannot be written: %s", self._spool.path, error)
            return
        self._num_spooled = len(self._unsent)
