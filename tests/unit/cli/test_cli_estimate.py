"""The time left is said once enough is known, from what trials have taken."""

from __future__ import annotations

import pytest

from tlsearch.cli.tables.estimate import Estimate


def _search(*, trials: int, epochs: int, epoch_s: float, ended: int) -> tuple[Estimate, float]:
    """One trial after another, each of so many epochs."""
    estimate, now = Estimate(trials=trials, max_epochs=epochs), 0.0
    for _ in range(ended):
        for _ in range(epochs):
            now += epoch_s
            estimate.reported(now)
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
    assert estimate.left_s(now, [4]) == pytest.approx(15 * 50 + 10, rel=0.15)  # one has begun


def test_cheap_first_trials_do_not_promise_too_much() -> None:
    estimate, now = _search(trials=20, epochs=5, epoch_s=0.1, ended=5)
    for _ in range(4):
        for _ in range(5):
            now += 10.0
            estimate.reported(now)
        estimate.ended(5)
    assert estimate.left_s(now, []) == pytest.approx(11 * 50, rel=0.15)


def test_trials_of_an_earlier_start_count_for_the_length_not_for_the_rate() -> None:
    estimate = Estimate(trials=10, max_epochs=4)
    for _ in range(5):
        estimate.ended(4)
    assert estimate.left_s(1000.0, [0]) is None
    for n in range(4):
        estimate.reported(1000.0 + 10 * n)
    assert estimate.left_s(1030.0, []) == pytest.approx(5 * 4 * 10, rel=0.15)


def test_the_end_of_the_last_trial_is_near_not_past() -> None:
    estimate, now = _search(trials=4, epochs=5, epoch_s=10.0, ended=4)
    assert estimate.left_s(now, []) == 0
    estimate, now = _search(trials=5, epochs=5, epoch_s=10.0, ended=4)
    left = estimate.left_s(now, [5])
    assert left is not None and 0 < left <= 10
