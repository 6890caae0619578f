"""How long a search will still take: its forecast, corrected by what its trials have taken so far."""

from __future__ import annotations

from bisect import bisect_right
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
        self._configs: list[TrialConfig] = []  # of each report
        self._times: list[float] = []  # rising
        self._work_s = [0.0]  # by a number of reports the work of the first ones, as `_weighed_by` weighs it
        self._weighed_by: Forecast | None = None
        self._num_ended = self._epochs_ended = 0

    def reported(self, at: float, config: TrialConfig) -> None:
        """An epoch has ended, ``at`` seconds on any steady clock."""
        self._configs.append(config)
        self._times.append(at)

    def ended(self, epochs: int) -> None:
        """A trial has ended after this number of epochs, in this start or an earlier one."""
        self._num_ended += 1
        self._epochs_ended += epochs

    def left_s(self, now: float, running: Iterable[tuple[TrialConfig, int]]) -> float | None:
        """Seconds to the end of the last trial; None where too little is known.

        Args:
            now: As of ``reported``.
            running: Each trial that has begun and not ended, with the epochs that it has done.
        """
        running = list(running)
        forecast = self._forecast()
        begun = self._num_ended + len(running)
        if forecast is None and not self._enough(now):
            return None
        typical = self._typical(forecast)
        work_s = self._weights(forecast)
        left = sum(work_s(config) * self._rest(done, typical) for config, done in running)
        if forecast is None:
            left += max(0, self._trials - begun) * typical
        else:
            left += forecast.work_left_s(begun, self._trials)
        rate = self._rate(now, forecast)
        return left / rate if rate else None

    def _enough(self, now: float) -> bool:
        known = self._num_ended >= _MIN_TRIALS and len(self._times) >= _MIN_EPOCHS
        return known and now - self._times[0] >= _MIN_S

    def _typical(self, forecast: Forecast | None) -> float:
        """Epochs of a trial: those of the ended ones, and of the forecast as if it were a few more of them."""
        trials, epochs = self._num_ended, float(self._epochs_ended)
        if forecast is not None:
            trials, epochs = trials + _MIN_TRIALS, epochs + _MIN_TRIALS * forecast.mean_epochs
        return max(1.0, epochs / trials)

    @staticmethod
    def _weights(forecast: Forecast | None) -> Callable[[TrialConfig], float]:
        return (lambda config: 1.0) if forecast is None else forecast.epoch_s

    def _rest(self, done: int, typical: float) -> float:
        """Epochs that a running trial may still take; one that has passed the average goes on to its end, or half."""
        return typical - done if done < typical else max(0.5, (self._num_reports - done) / 2)

    def _rate(self, now: float, forecast: Forecast | None) -> float:
        """Work a second, since the last report of the earlier half; the forecast's rate for ``_TRUST_S`` beside it."""
        done = elapsed_s = 0.0
        num = len(self._times)  # the driver may add reports meanwhile
        if num > 1:
            middle = (self._times[0] + now) / 2
            late = num - bisect_right(self._times, middle, hi=num)
            late = late if _MIN_EPOCHS <= late < num else num - 1
            work_s = self._work_of_first(num, forecast)
            done = work_s[num] - work_s[num - late]
            elapsed_s = now - self._times[num - late - 1]
        if forecast is not None:
            done += _TRUST_S * forecast.work_rate
            elapsed_s += _TRUST_S
        return done / elapsed_s if elapsed_s else 0.0

    def _work_of_first(self, num: int, forecast: Forecast | None) -> list[float]:
        """By a number of reports, up to ``num``, the work of the first ones; each is weighed once for a forecast."""
        if forecast is not self._weighed_by:
            self._weighed_by, self._work_s = forecast, [0.0]
        work_s = self._weights(forecast)
        for config in self._configs[len(self._work_s) - 1 : num]:
            self._work_s.append(self._work_s[-1] + work_s(config))
        return self._work_s
