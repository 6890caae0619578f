"""How long a search has run, over all its starts, and whether its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeBudget:
    """Counts monotonic seconds from now on top of what earlier starts spent: a wrong clock changes nothing."""

    def __init__(
        self, limit_s: float | None, *, spent_s: float = 0.0, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._timer = timer
        self._origin = timer() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of all starts so far."""
        return self._timer() - self._origin

    @property
    def over(self) -> bool:
        """Whether the limit is reached; never without a limit."""
        return self._limit_s is not None and self.spent_s >= self._limit_s
