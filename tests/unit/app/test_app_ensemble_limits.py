"""The limits of an ensemble: an estimate selects its members, and what was made of them is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined import ensemble_costs
from tlsearch.app.combined import make_ensemble as making
from tlsearch.app.combined.ensemble_costs import EnsembleCosts, Limits
from tlsearch.app.combined.make_ensemble import make_ensemble
from tlsearch.results.combine.combination import Member
from tlsearch.results.combine.selection import Selected

MEMBERS = (Member(trial=0, count=2), Member(trial=2, count=1))  # of two backbones


@pytest.fixture
def entry(ended_search: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> SearchEntry:
    monkeypatch.setattr(ensemble_costs, "measure_latency", lambda spec: 4.0)
    return ended_search


def test_the_limits_count_what_members_share_once(entry: SearchEntry) -> None:
    """Two heads on one pretrained backbone are hardly larger than one; of random weights each trial has its own."""
    file, trials = stored_file(entry, "")[0], read_record(entry).trials
    random = EnsembleCosts(file, 3, trials)
    costs = EnsembleCosts(replace(file, weights={}), 3, trials)
    assert random.parameters([0, 1]) == 2 * random.parameters([0])
    assert costs.parameters([0]) < costs.parameters([0, 1]) < 1.01 * costs.parameters([0])
    assert costs.parameters([0, 2]) == costs.parameters([0]) + costs.parameters([2])
    fits = costs.fits(Limits(parameters=costs.parameters([0, 1])))
    assert fits(frozenset([0, 1])) and not fits(frozenset([0, 2]))
    quick = costs.fits(Limits(latency_ms=1.5 * costs.latency_ms([0])))
    assert quick(frozenset([0, 1])) and not quick(frozenset([0, 1, 2]))


def test_an_ensemble_that_is_measured_beyond_its_limit_is_replaced_by_a_faster_one(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate allows two models; what they take together does not, and the next selection knows."""
    two = Selected(
        members=MEMBERS,
        temperatures=(1.5, 1.5),
        value=0.75,
        cross_fitted=0.7,
        best_trial=0,
        best_value=0.7,
        best_cross_fitted=0.65,
        helps=True,
    )
    one = replace(two, members=MEMBERS[:1], temperatures=(1.5,), helps=False)
    asked = []

    def select(*_: object, fits: Any, **__: object) -> Selected:
        asked.append(fits(frozenset([0, 2])))
        return two if asked[-1] else one

    monkeypatch.setattr(making, "select_ensemble", select)
    estimate = EnsembleCosts(stored_file(entry, "")[0], 3, read_record(entry).trials).latency_ms([0, 2])
    assert estimate == pytest.approx(8.0), "the parts of each add up to the whole model, measured at 4 ms"
    monkeypatch.setattr(making, "measure_module", lambda *_: 9.0)
    found = make_ensemble(entry, max_latency_ms=8.5)
    assert asked == [True, False] and found.members == MEMBERS[:1]
    assert make_ensemble(entry, max_latency_ms=9.0).members == MEMBERS


def test_what_one_ensemble_took_longer_is_expected_of_others_but_of_no_single_model(entry: SearchEntry) -> None:
    """A single model was measured as a whole; the parts of several are shared, which is estimated."""
    costs = EnsembleCosts(stored_file(entry, "")[0], 3, read_record(entry).trials)
    assert costs.latency_ms([0]) == pytest.approx(costs.alone(0).latency_ms) == 4.0
    slower = costs.fits(Limits(latency_ms=8.5), slower=1.125)
    assert slower(frozenset([0])) and slower(frozenset([2])) and not slower(frozenset([0, 2]))
    assert costs.fits(Limits(latency_ms=8.5))(frozenset([0, 2]))
