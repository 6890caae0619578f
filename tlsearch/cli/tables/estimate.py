"""How long a search will still take, from what its trials have taken so far."""

from __future__ import annotations

from collections.abc import Iterable

_MIN_TRIALS = 3  # that have ended, before anything is said
_MIN_EPOCHS = 3  # that were reported in this start
_MIN_S = 5.0  # since the first report


class Estimate:
    """Counts the epochs of one start of a search.

    The epochs that are left (as many for each trial as those that have ended took on average) over the rate at which
    epochs have come in the later half of the time so far: early trials are cheap ones.
    """

    def __init__(self, *, trials: int, max_epochs: int) -> None:
        """Knows nothing yet.

        Args:
            trials: Of the whole search.
            max_epochs: Of one trial.
        """
        self._trials, self._max_epochs = trials, max_epochs
        self._times: list[float] = []
        self._ended: list[int] = []  # epochs of each ended trial

    def reported(self, at: float) -> None:
        """An epoch has ended, ``at`` seconds on any steady clock."""
        self._times.append(at)

    def ended(self, epochs: int) -> None:
        """A trial has ended after this number of epochs, in this start or an earlier one."""
        self._ended.append(epochs)

    def left_s(self, now: float, running: Iterable[int]) -> float | None:
        """Seconds to the end of the last trial; None where too little is known.

        Args:
            now: As of ``reported``.
            running: Epochs done by each trial that has begun and not ended.
        """
        running = list(running)
        if len(self._ended) < _MIN_TRIALS or len(self._times) < _MIN_EPOCHS or now - self._times[0] < _MIN_S:
            return None
        typical = max(1.0, sum(self._ended) / len(self._ended))
        to_begin = max(0, self._trials - len(self._ended) - len(running))
        epochs = to_begin * typical + sum(self._rest(done, typical) for done in running)
        rate = self._rate(now)
        return epochs / rate if rate else None

    def _rest(self, done: int, typical: float) -> float:
        """Epochs that a running trial may still take; one that has passed the average goes on to its end, or half."""
        return typical - done if done < typical else max(0.5, (self._max_epochs - done) / 2)

    def _rate(self, now: float) -> float:
        """Epochs a second, since the last report of the earlier half."""
        middle = (self._times[0] + now) / 2
        late = sum(time > middle for time in self._times)
        late = late if _MIN_EPOCHS <= late < len(self._times) else len(self._times) - 1
        return late / (now - self._times[-late - 1])
