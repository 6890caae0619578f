"""The time left is said once enough is known, from what trials have taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tlsearch.core.types import TrialConfig
from tlsearch.display.estimate import Estimate
from tlsearch.forecast.forecast import Forecast, Interval

HEAD = TrialConfig(backbone="a")
DEEP = TrialConfig(backbone="a", unfreeze_depth=5, backbone_lr=1e-4)


def _search(*, trials: int, epochs: int, epoch_s: float, ended: int) -> tuple[Estimate, float]:
    """One trial after another, each of so many epochs."""
    estimate, now = Estimate(trials=trials, num_reports=epochs), 0.0
    for _ in range(ended):
        for _ in range(epochs):
            now += epoch_s
            estimate.reported(now, HEAD)
        estimate.ended(epochs)
    return estimate, now


def test_nothing_is_said_before_enough_is_known() -> None:
    for ended in (0, 1, 2):
        estimate, now = _search(trials=20, epochs=5, epoch_s=10.0, ended=ended)
        assert estimate.left_s(now, []) is None
    estimate, now = _search(trials=20, epochs=5, epoch_s=0.01, ended=5)
    assert estimate.left_s(now, []) is None  # five trials within a second tell nothing of the next


def test_even_trials_are_estimated_exactly() -> None:
    estimate, now = _search(trials=20, epochs=5, epoch_s=10.0, ended=4)
    assert estimate.left_s(now, []) == pytest.approx(16 * 50, rel=0.15)
    assert estimate.left_s(now, [(HEAD, 4)]) == pytest.approx(15 * 50 + 10, rel=0.15)  # one has begun


def test_cheap_first_trials_do_not_promise_too_much() -> None:
    estimate, now = _search(trials=20, epochs=5, epoch_s=0.1, ended=5)
    for _ in range(4):
        for _ in range(5):
            now += 10.0
            estimate.reported(now, HEAD)
        estimate.ended(5)
    assert estimate.left_s(now, []) == pytest.approx(11 * 50, rel=0.15)


def test_trials_of_an_earlier_start_count_for_the_length_not_for_the_rate() -> None:
    estimate = Estimate(trials=10, num_reports=4)
    for _ in range(5):
        estimate.ended(4)
    assert estimate.left_s(1000.0, [(HEAD, 0)]) is None
    for n in range(4):
        estimate.reported(1000.0 + 10 * n, HEAD)
    assert estimate.left_s(1030.0, []) == pytest.approx(5 * 4 * 10, rel=0.15)


def test_the_end_of_the_last_trial_is_near_not_past() -> None:
    estimate, now = _search(trials=4, epochs=5, epoch_s=10.0, ended=4)
    assert estimate.left_s(now, []) == 0
    estimate, now = _search(trials=5, epochs=5, epoch_s=10.0, ended=4)
    left = estimate.left_s(now, [(HEAD, 5)])
    assert left is not None and 0 < left <= 10


def _forecast(*, trials: int, head_s: float, deep_s: float, epochs: float) -> Forecast:
    """Head-only trials first, then as many deep ones; two slots."""
    half = trials // 2
    return Forecast(
        wall_s=Interval(low=1.0, median=2.0, high=3.0),
        busy_s=1.0,
        start_s=0.0,
        trials=trials,
        rungs={},
        work_s=(head_s * epochs,) * half + (deep_s * epochs,) * (trials - half),
        work_rate=2.0,
        epoch_s=lambda config: deep_s if config.unfreeze_depth else head_s,
        mean_epochs=epochs,
    )


def test_a_forecast_is_said_before_the_first_report_and_knows_that_later_trials_are_dearer() -> None:
    forecast = _forecast(trials=20, head_s=1.0, deep_s=10.0, epochs=5)
    estimate = Estimate(trials=20, num_reports=5, forecast=lambda: forecast)
    assert estimate.left_s(0.0, []) == pytest.approx((50 + 500) / 2)
    now = 0.0
    for _ in range(10):
        for _ in range(5):
            now += 0.5
            estimate.reported(now, HEAD)
        estimate.ended(5)
    assert estimate.left_s(now, []) == pytest.approx(500 / 2, rel=0.05)


def test_a_forecast_is_corrected_by_what_was_measured() -> None:
    forecast = _forecast(trials=40, head_s=1.0, deep_s=10.0, epochs=5)
    estimate, now = Estimate(trials=40, num_reports=5, forecast=lambda: forecast), 0.0
    for _ in range(20):
        for _ in range(5):
            now += 2.0  # a quarter of the speed that was forecast
            estimate.reported(now, HEAD)
        estimate.ended(5)
    left = estimate.left_s(now, [(DEEP, 0)])
    assert left is not None and 1000 / 2 < left < 1000 * 2.1
    assert left == pytest.approx(1000 / ((50 * 1.0 + 30 * 2.0) / (102 + 30)), rel=0.1)


def test_each_report_is_weighed_once() -> None:
    """A long search asks for its end a thousand times."""
    weighed: list[TrialConfig] = []

    def epoch_s(config: TrialConfig) -> float:
        weighed.append(config)
        return 1.0

    forecast = replace(_forecast(trials=40, head_s=1.0, deep_s=1.0, epochs=5), epoch_s=epoch_s)
    estimate = Estimate(trials=40, num_reports=5, forecast=lambda: forecast)
    for n in range(50):
        estimate.reported(float(n), HEAD)
        estimate.left_s(float(n), [])
    assert len(weighed) == 50


def test_a_forecast_that_comes_late_weighs_the_earlier_reports_too() -> None:
    forecasts: list[Forecast | None] = [None]
    late = Estimate(trials=40, num_reports=5, forecast=lambda: forecasts[0])
    early = Estimate(trials=40, num_reports=5, forecast=lambda: _forecast(trials=40, head_s=1, deep_s=10, epochs=5))
    for n in range(20):
        for estimate in (late, early):
            estimate.reported(float(n), DEEP if n % 2 else HEAD)
            estimate.left_s(float(n), [])
    forecasts[0] = _forecast(trials=40, head_s=1, deep_s=10, epochs=5)
    assert late.left_s(20.0, []) == pytest.approx(early.left_s(20.0, []))
