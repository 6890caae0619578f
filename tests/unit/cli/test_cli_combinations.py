"""``ensemble`` and ``promote`` pass on what was asked for, and print what it is worth in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from preparing import stub_entry
from typer.testing import CliRunner

import tlsearch.app.production.promote  # before `find` is patched, which it would keep
import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.cli.root import app
from tlsearch.results.combine.combination import Combination, Member

_MADE: dict[str, Any] = {
    "kind": "ensemble",
    "members": (Member(trial=4, count=3), Member(trial=0, count=1)),
    "metric": "val_accuracy",
    "value": 0.75,
    "cross_fitted": 0.72,
    "best_trial": 4,
    "best_value": 0.7,
    "best_cross_fitted": 0.68,
    "parameters": 1_234_567,
    "latency_ms": 12.3,
    "num_val": 100,
    "helps": True,
    "best_parameters": 456_789,
    "best_latency_ms": 4.5,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The options that reach the application, and a search that does not exist."""
    found: list[Any] = []
    entry = stub_entry(tmp_path, "")

    def make(entry: SearchEntry, **options: object) -> Combination:
        found.append(options)
        return Combination(**_MADE)

    monkeypatch.setattr("tlsearch.app.catalog.catalog.find", lambda *_: entry)
    monkeypatch.setattr("tlsearch.app.combined.make_ensemble.make_ensemble", make)
    return found


def test_an_ensemble_is_shown_beside_the_best_trial(asked: list[Any]) -> None:
    options = ["--max-models", "3", "--max-latency-ms", "50", "--max-params", "2000000"]
    result = CliRunner().invoke(app, ["ensemble", "one", *options])
    assert result.exit_code == 0, result.output
    assert asked == [{"max_models": 3, "max_latency_ms": 50.0, "max_params": 2_000_000, "address": "local"}]
    trial, ensemble = (
        [cell.strip() for cell in line.split("│")]
        for line in result.output.splitlines()
        if "│" in line and "0.7" in line
    )
    assert trial[1:-1] == ["trial", "4", "0.6800", "0.7000", "0.5 M", "4.5"]
    assert ensemble[1:-1] == ["ensemble", "4 x3, 0", "0.7200", "0.7500", "1.2 M", "12.3"]
    assert "val_accuracy on 100 validation images" in result.output and "trial 4 by 0.0400" in result.output
    assert result.output.count("tlsearch promote one --ensemble") == 1


def test_an_ensemble_that_does_not_help_is_said_to(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_MADE, "helps", False)
    result = CliRunner().invoke(app, ["ensemble", "one"])
    assert "the ensemble is not better than trial 4" in result.output
    plain = json.loads(CliRunner().invoke(app, ["ensemble", "one", "--json"]).output)
    assert plain["helps"] is False and plain["members"][0] == {"trial": 4, "count": 3}


def test_a_promotion_takes_one_combination(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def promote(entry: SearchEntry, options: Any) -> None:
        seen.append(options.combined)
        raise ValueError  # nothing more is of interest here

    monkeypatch.setattr("tlsearch.app.production.promote.promote", promote)
    for arguments in (["--ensemble"], ["--soup"], ["--distill"], []):
        CliRunner().invoke(app, ["promote", "one", *arguments])
    assert seen == ["ensemble", "soup", "distilled", None]
    both = CliRunner().invoke(app, ["promote", "one", "--ensemble", "--distill"])
    assert both.exit_code == 2 and len(seen) == 4
