"""How long running trials have said nothing, and which of them are taken to hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection


class Silence:
    """Seconds since a trial began to run in its worker, or since its last word.

    A trial is found silent once; it is given a new limit when it runs again in another worker.
    """

    def __init__(self, limit_s: float | None, *, timer: Callable[[], float] = time.monotonic) -> None:
        """None is no limit."""
        self.limit_s = limit_s
        self._timer = timer
        self._since: dict[str, float] = {}
        self._hanging: set[str] = set()

    def broken(self, trial_id: str) -> None:
        """The trial has said something."""
        self._since.pop(trial_id, None)
        self._hanging.discard(trial_id)

    def too_long(self, running: Collection[str]) -> list[str]:
        """Those of the trials that run now which have just gone beyond the limit.

        Args:
            running: The trials that are in a worker; one that waits for a worker is not silent.
        """
        now = self._timer()
        self._since = {trial_id: self._since.get(trial_id, now) for trial_id in running}
        if self.limit_s is None:
            return []
        found = [t for t, since in self._since.items() if now - since > self.limit_s and t not in self._hanging]
        self._hanging.update(found)
        return found

    def verdict(self, trial_id: str) -> str:
        """Why the trial's worker was killed; empty if not for its silence. It may run again."""
        if trial_id not in self._hanging:
            return ""
        self.broken(trial_id)
        return f"killed after {self.limit_s:g} s without a report (search.trial_timeout)"
