"""How long a search will still take: its forecast, corrected by what its trials have taken so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tlsearch.core.types import TrialConfig

if TYPE_CHECKING:
    from tlsearch.forecast.forecast import Forecast

_MIN_TRIALS = 3  # that have ended, before anything is said without a forecast
_MIN_EPOCHS = 3  # that were reported in this start
_MIN_S = 5.0  # since the first report
_TRUST_S = 30.0  # so long the forecast counts as much as what was measured


class Estimate:
    """Counts the work of one start of a search, in epochs, each weighed by the seconds that the forecast gives it.

    The work that is left over the rate at which work has come in the later half of the time so far: early trials are
    cheap ones. Without a forecast all epochs weigh the same, and trials to come take as many as those that have ended.
    """

    def __init__(self, *, trials: int, num_reports: int, forecast: Callable[[], Forecast | None] | None = None) -> None:
        """Knows nothing yet.

        Args:
            trials: Of the whole search.
            num_reports: Of a whole trial: its epochs, or folds.
            forecast: Gives the search's forecast once there is one.
        """
        self._trials, self._num_reports = trials, num_reports
        self._forecast = forecast or (lambda: None)
        self._reports: list[tuple[float, TrialConfig]] = []
        self._ended: list[int] = []  # epochs of each ended trial

    def reported(self, at: float, config: TrialConfig) -> None:
        """An epoch has ended, ``at`` seconds on any steady clock."""
        self._reports.append((at, config))

    def ended(self, epochs: int) -> None:
        """A trial has ended after this number of epochs, in this start or an earlier one."""
        self._ended.append(epochs)

    def left_s(self, now: float, running: Iterable[tuple[TrialConfig, int]]) -> float | None:
        """Seconds to the end of the last trial; None where too little is known.

        Args:
            now: As of ``reported``.
            running: Each trial that has begun and not ended, with the epochs that it has done.
        """
        running = list(running)
        forecast = self._forecast()
        begun = len(self._ended) + len(running)
        if forecast is None and not self._enough(now):
            return None
        typical = self._typical(forecast)
        work_s = self._weights(forecast)
        left = sum(work_s(config) * self._rest(done, typical) for config, done in running)
        if forecast is None:
            left += max(0, self._trials - begun) * typical
        else:
            left += forecast.work_left_s(begun, self._trials)
        rate = self._rate(now, work_s, forecast)
        return left / rate if rate else None

    def _enough(self, now: float) -> bool:
        known = len(self._ended) >= _MIN_TRIALS and len(self._reports) >= _MIN_EPOCHS
        return known and now - self._reports[0][0] >= _MIN_S

    def _typical(self, forecast: Forecast | None) -> float:
        """Epochs of a trial: those of the ended ones, and of the forecast as if it were a few more of them."""
        expected = [] if forecast is None else [forecast.mean_epochs] * _MIN_TRIALS
        epochs = [*self._ended, *expected]
        return max(1.0, sum(epochs) / len(epochs))

    @staticmethod
    def _weights(forecast: Forecast | None) -> Callable[[TrialConfig], float]:
        return (lambda config: 1.0) if forecast is None else forecast.epoch_s

    def _rest(self, done: int, typical: float) -> float:
        """Epochs that a running trial may still take; one that has passed the average goes on to its end, or half."""
        return typical - done if done < typical else max(0.5, (self._num_reports - done) / 2)

    def _rate(self, now: float, work_s: Callable[[TrialConfig], float], forecast: Forecast | None) -> float:
        """Work a second, since the last report of the earlier half; the forecast's rate for ``_TRUST_S`` beside it."""
        done = elapsed_s = 0.0
        if len(self._reports) > 1:
            times = [at for at, _ in self._reports]
            middle = (times[0] + now) / 2
            late = sum(at > middle for at in times)
            late = late if _MIN_EPOCHS <= late < len(times) else len(times) - 1
            done = sum(work_s(config) for _, config in self._reports[-late:])
            elapsed_s = now - times[-late - 1]
        if forecast is not None:
            done += _TRUST_S * forecast.work_rate
            elapsed_s += _TRUST_S
        return done / elapsed_s if elapsed_s else 0.0
