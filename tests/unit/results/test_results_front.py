"""The Pareto front of a search: its rows, JSON, sentence, tables and section of the report."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from search_records import make_facts, make_trial, record_of

from tlsearch.cli.tables.results_table import print_front
from tlsearch.core.types import SearchRecord, TrialRecord, TrialState
from tlsearch.results.leaderboard.front_rows import front_json, front_rows, front_sentence
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.report.page import make_report
from tlsearch.results.report.plots.view import View


def costing(number: int, value: float, ms: float | None, **more: object) -> TrialRecord:
    measured = {} if ms is None else {"latency_ms": ms}
    trial = make_trial(number, [value - 0.1, value], params={"head_lr": 0.001 * (number + 1)})
    return replace(trial, measured=measured, **more)  # type: ignore[arg-type]


TRIALS = [
    costing(0, 0.6, 5.0),
    costing(1, 0.7, 20.0),
    costing(2, 0.5, 6.0),
    costing(3, 0.65, 9.0),
    costing(4, 0.7, 21.0),
    costing(5, 0.9, 1.0, state=TrialState.FAILED, reason="error"),
    costing(6, 0.9, None),
    costing(7, 0.6, 5.0),
]


def searched(metric: str = "val_accuracy", cost: str = "latency_ms") -> SearchRecord:
    return replace(record_of(TRIALS, metric=metric), cost=cost)


def test_the_front_of_a_search() -> None:
    assert [trial.number for trial in searched().front] == [0, 3, 1]
    rows = front_rows(searched())
    assert [(row.trial, row.value, row.cost_text, row.best) for row in rows] == [
        (0, 0.6, "5", False),
        (3, 0.65, "9", False),
        (1, 0.7, "20", False),
    ]
    found = front_json(searched())
    assert found is not None and found["objectives"] == ["val_accuracy", "latency_ms"]
    assert found["trials"][0] == {"trial": 0, "value": 0.6, "cost": 5.0, "model": TRIALS[0].config.model}
    assert front_sentence(searched()) == (
        "Pareto front of val_accuracy and latency_ms: 3 trials, val_accuracy 0.6000 at latency_ms 5, to 0.7000 at 20"
    )


def test_a_search_with_one_objective_has_none() -> None:
    record = record_of(TRIALS)
    assert (record.front, front_json(record), front_sentence(record)) == ([], None, "")


def test_before_the_first_result() -> None:
    record = replace(searched(), trials=())
    assert front_json(record) == {"objectives": ["val_accuracy", "latency_ms"], "trials": []}
    assert front_sentence(record).endswith("no trial has a result yet")


def test_a_trial_that_saw_few_folds_is_not_on_the_front() -> None:
    def folded(number: int, value: float, ms: float, seen: int) -> TrialRecord:
        trial = make_trial(number, [value] * seen)
        reports = tuple(replace(one, folds=3) for one in trial.reports)
        return replace(trial, reports=reports, measured={"latency_ms": ms})

    record = replace(searched(), trials=(folded(0, 0.9, 5.0, 1), folded(1, 0.5, 6.0, 3), folded(2, 0.6, 9.0, 3)))
    assert [trial.number for trial in record.front] == [1, 2]


def test_the_table_of_the_front() -> None:
    said = StringIO()
    print_front(Console(file=said, width=100), searched())
    lines = said.getvalue().splitlines()
    assert lines[0] == "Pareto front of val_accuracy and latency_ms"
    assert "latency_ms, ms an image" in lines[1] + lines[2] and "0.6500" in said.getvalue()
    silent = StringIO()
    print_front(Console(file=silent), record_of(TRIALS))
    assert silent.getvalue() == ""


@pytest.mark.parametrize("cost", ["", "latency_ms", "params_millions", "checkpoint_mb"])
def test_the_report_has_the_front_once(cost: str) -> None:
    record = replace(searched(cost=cost), trials=tuple(replace(one, measured={cost: 3.0}) for one in TRIALS[:4]))
    facts = make_facts()
    report = make_report(View(record=record, rows=leaderboard(record, {}, facts), facts=facts))
    assert ('<section id="front">' in report.html) == bool(cost)
    assert report.html.count('id="plot-size"') <= 1
    if cost:
        assert f"Pareto front of val_accuracy and {cost}" in report.html
        assert ("--max-latency-ms L" in report.html) == (cost == "latency_ms")
