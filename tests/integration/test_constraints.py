"""Constraints in a search of real trials: a slow model is measured in its worker and not trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from search_checks import study_trials
from twice import prepared_plan

from tlsearch.config.search_section import ConstraintsSpec, Limit
from tlsearch.core.types import TrialState
from tlsearch.search import read_search, run_search

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.mark.parametrize("limit_ms", [1e6, 1e-3])
def test_the_latency_is_measured_before_the_first_epoch(tmp_path: Path, local_ray: None, limit_ms: float) -> None:
    plan = prepared_plan(tmp_path, "limited")
    constraints = ConstraintsSpec(latency_ms=Limit(max=limit_ms))
    plan = replace(plan, search=replace(plan.search, constraints=constraints, trials=3))
    assert run_search(plan) == "finished"
    record = read_search(Path(plan.directory))
    for trial in record.trials:
        assert 0.01 < trial.measured["latency_ms"] < 10_000
        assert (trial.state is TrialState.INFEASIBLE) == (limit_ms < 1)
        assert (trial.epochs_run == 0) == (limit_ms < 1)
    for stored in study_trials(Path(plan.directory)):
        assert (stored.constraints["latency_ms"] > 0) == (limit_ms < 1)
    assert (record.best is None) == (limit_ms < 1)
