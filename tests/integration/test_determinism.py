"""The same file and the same seed, one trial at a time in Ray's workers: the same to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_doubles import drive
from twice import prepared_plan, told

from tlsearch.search import read_search, run_search
from tlsearch.trial import FineTuning


@pytest.mark.slow
@pytest.mark.ray
def test_two_runs_in_workers_are_equal_to_the_bit(tmp_path: Path, local_ray: None) -> None:
    records = []
    for name in ("first", "second", "third"):
        plan = prepared_plan(tmp_path, name)
        if name == "third":
            assert drive(plan, factory=FineTuning) == "finished"
        else:
            assert run_search(plan) == "finished"
        records.append(told(read_search(Path(plan.directory))))
    assert records[0] == records[1] == records[2]
