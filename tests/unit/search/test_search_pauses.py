"""The time between two starts of a search is no part of its durations."""

from __future__ import annotations

import pytest

from tlsearch.core.types import Decision, EpochReport
from tlsearch.search.scheduling.stopping_rules import Verdict
from tlsearch.search.study.records import pauses_of
from tlsearch.search.study.stored_reports import StoredReport


def _reports(*times: tuple[float, float]) -> list[StoredReport]:
    """Reports by (Unix time, seconds that the search had spent)."""
    return [
        StoredReport(
            seq=seq,
            verdict=Verdict(decision=Decision.CONTINUE),
            report=EpochReport(epoch=seq + 1, metrics={}, timestamp=timestamp),
            value=0.0,
            spent_s=spent_s,
        )
        for seq, (timestamp, spent_s) in enumerate(times)
    ]


def test_each_pause_is_found_with_its_length() -> None:
    first, second, third = (1010.0, 10.0), (1020.0, 20.0), (5030.0, 30.0)  # resumed after 4,000 s
    assert pauses_of(_reports(first, second, third)) == ((1020.0, 4000.0),)
    fourth = (5060.0, 40.0)  # and again after 20 s
    assert pauses_of(_reports(first, second, third, fourth)) == ((1020.0, 4000.0), (5030.0, 20.0))


def test_a_search_that_ran_through_has_none() -> None:
    late = ((1010.0, 11.5), (1011.0, 11.6), (1030.0, 30.0), (1029.5, 31.5), (1500.0, 500.0))
    assert pauses_of(_reports(*late)) == ()
    assert pauses_of([]) == ()


def test_clocks_that_disagree_count_once() -> None:
    apart = [(1000.0 + n + (30.0 if n % 2 else 0.0), float(n)) for n in range(20)]  # two nodes, 30 s apart
    assert pauses_of(_reports(*apart)) == (pytest.approx((1000.0, 30.0)),)
