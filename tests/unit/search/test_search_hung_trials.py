"""Which trials are taken to hang."""

from __future__ import annotations

from tlsearch.search.ray_tune.scheduler import Silence


class Timer:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_trial_hangs_after_the_limit_and_is_told_once() -> None:
    timer = Timer()
    silence = Silence(10.0, timer=timer)
    assert silence.too_long(["a", "b"]) == []
    timer.now = 9.0
    silence.broken("b")
    assert silence.too_long(["a", "b"]) == []
    timer.now = 11.0
    assert silence.too_long(["a", "b"]) == ["a"]
    assert silence.too_long(["a", "b"]) == []
    assert silence.verdict("b") == ""
    assert silence.verdict("a") == "killed after 10 s without a report (search.trial_timeout)"
    timer.now = 12.0
    assert silence.too_long(["a", "b"]) == []  # a runs again and has its whole time
    timer.now = 23.0
    assert silence.too_long(["a", "b"]) == ["a", "b"]


def test_a_trial_that_waits_for_a_worker_is_not_silent() -> None:
    timer = Timer()
    silence = Silence(10.0, timer=timer)
    silence.too_long(["a"])
    timer.now = 8.0
    silence.too_long([])  # its worker is gone
    timer.now = 15.0
    assert silence.too_long(["a"]) == []


def test_without_a_limit_no_trial_hangs() -> None:
    timer = Timer()
    silence = Silence(None, timer=timer)
    silence.too_long(["a"])
    timer.now = 1e9
    assert silence.too_long(["a"]) == []
