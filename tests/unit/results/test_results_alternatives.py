"""Best trial, soup and ensemble side by side: from kept logits alone, and from what was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from search_records import make_facts, make_trial, record_of

from tlsearch.cli.tables.results_table import alternatives_advice, alternatives_table
from tlsearch.results.combine import alternatives as comparing
from tlsearch.results.combine.alternatives import alternatives
from tlsearch.results.combine.combination import Combination, Member, write_combination
from tlsearch.results.combine.kept_logits import Kept
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.report.page import make_report
from tlsearch.results.report.plots.view import View

LABELS = np.repeat(np.arange(3), 20)
RECORD = record_of([make_trial(0, [0.6]), make_trial(1, [0.7]), make_trial(2, [0.65])])
BACKBONE = RECORD.trials[0].config.backbone
SIZES: dict[str, Any] = {"parameters": {BACKBONE: 2_000_000}, "latency_ms": {BACKBONE: 8.0}}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trials with errors of their own, so that averages are better."""
    rng = np.random.default_rng(0)
    logits = np.stack([np.eye(3)[LABELS] + rng.normal(size=(60, 3)) for _ in range(3)])
    monkeypatch.setattr(comparing, "read_kept", lambda *_: Kept(trials=(1, 2, 0), logits=logits, labels=LABELS))


def _made(kind: Any, **more: Any) -> Combination:
    values: dict[str, Any] = {
        "members": (Member(trial=1, count=1), Member(trial=2, count=1)),
        "metric": "val_accuracy",
        "value": 0.75,
        "cross_fitted": 0.72,
        "best_trial": 1,
        "best_value": 0.7,
        "best_cross_fitted": 0.69,
        "parameters": 2_000_000,
        "latency_ms": 8.5,
        "num_val": 60,
        "helps": True,
    }
    return Combination(kind=kind, **(values | more))


def test_the_ensemble_s_worth_is_known_without_a_model(kept: None, tmp_path: Path) -> None:
    trial, ensemble = alternatives(tmp_path, RECORD, **SIZES)
    assert (trial.kind, trial.members_text, trial.value, trial.parameters) == ("trial", "1", 0.7, 2_000_000)
    assert ensemble.kind == "ensemble" and ensemble.helps and not ensemble.made
    assert ensemble.cross_fitted is not None and trial.cross_fitted is not None
    assert ensemble.cross_fitted > trial.cross_fitted
    assert ensemble.parameters == 2_000_000 * len(ensemble.members) and ensemble.parameters_text.startswith("≤ ")
    assert ensemble.advice("a-1") == "tlsearch ensemble a-1"
    assert trial.advice("a-1") == "tlsearch promote a-1 --trial 1"


def test_what_was_made_is_shown_as_it_is(kept: None, tmp_path: Path) -> None:
    write_combination(tmp_path, _made("soup"), RECORD)
    write_combination(tmp_path, _made("ensemble", helps=False, parameters=3_000_000), RECORD)
    trial, soup, ensemble = alternatives(tmp_path, RECORD, **SIZES)
    assert [one.kind for one in (trial, soup, ensemble)] == ["trial", "soup", "ensemble"]
    assert soup.advice("a-1") == "tlsearch promote a-1 --soup" and soup.latency_text == "8.5"
    assert ensemble.parameters_text == "3.0 M" and ensemble.advice("a-1") == "no better than the best trial"
    console = Console(width=80, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(alternatives_table([trial, soup, ensemble], "a-1: best trial, soup, ensemble"))
    assert soup.cross_fitted == pytest.approx((trial.cross_fitted or 0.0) + 0.72 - 0.69)
    assert f"{soup.cross_fitted:.4f}" in captured.get() and "…" not in captured.get()
    assert "soup:     tlsearch promote a-1 --soup" in alternatives_advice([trial, soup, ensemble], "a-1").splitlines()


def test_the_best_trial_s_latency_is_that_which_was_measured_beside_the_combination(tmp_path: Path) -> None:
    write_combination(tmp_path, _made("soup", best_parameters=1_900_000, best_latency_ms=7.5), RECORD)
    write_combination(tmp_path, _made("ensemble", best_trial=2, best_parameters=1, best_latency_ms=1.0), RECORD)
    trial = alternatives(tmp_path, RECORD, **SIZES)[0]
    assert (trial.parameters, trial.latency_ms) == (1_900_000, 7.5)


def test_what_was_compared_with_an_earlier_best_trial_says_so(tmp_path: Path) -> None:
    """Its gain is not one over the best trial of now, and no command is given that promotes it."""
    write_combination(tmp_path, _made("soup"), RECORD)
    write_combination(tmp_path, _made("distilled"), RECORD)
    trial, soup, distilled = alternatives(tmp_path, record_of([*RECORD.trials, make_trial(3, [0.9])]), **SIZES)
    assert (trial.members_text, trial.cross_fitted, soup.cross_fitted) == ("3", None, 0.72)
    assert soup.advice("a-1") == "compared with an earlier best trial; `tlsearch soup a-1` makes it again"
    assert "`tlsearch promote a-1 --distill` makes it again" in distilled.advice("a-1")


def test_a_search_without_logits_shows_its_soup_alone_or_nothing(tmp_path: Path) -> None:
    assert len(alternatives(tmp_path, RECORD, **SIZES)) == 1
    write_combination(tmp_path, _made("soup"), RECORD)
    trial, soup = alternatives(tmp_path, RECORD, parameters={}, latency_ms={})
    assert trial.cross_fitted == 0.69 and trial.parameters_text == trial.latency_text == "-" and soup.made
    assert alternatives(tmp_path, record_of([]), **SIZES) == ()


def test_the_report_has_a_section_where_there_is_something_to_compare(kept: None, tmp_path: Path) -> None:
    facts = make_facts()
    found = alternatives(tmp_path, RECORD, **SIZES)
    view = View(record=RECORD, rows=leaderboard(RECORD, {}, facts), facts=facts, alternatives=found)
    html = make_report(view).html
    assert 'id="alternatives"' in html and f"{found[1].cross_fitted:.4f}" in html
    alone = View(record=RECORD, rows=leaderboard(RECORD, {}, facts), facts=facts, alternatives=found[:1])
    assert 'id="alternatives"' not in make_report(alone).html
