"""The same file and the same seed, one trial at a time: the same trials and the same metrics, to the bit."""

from __future__ import annotations

from pathlib import Path

from search_doubles import drive
from twice import prepared_plan, told

from tlsearch.search import read_search
from tlsearch.trial import FineTuning


def test_two_runs_are_equal_to_the_bit(tmp_path: Path) -> None:
    records = []
    for name in ("first", "second"):
        plan = prepared_plan(tmp_path, name)
        assert drive(plan, factory=FineTuning) == "finished"
        records.append(read_search(Path(plan.directory)))
    first, second = map(told, records)
    assert first == second and len(first) == 7
    assert len({str(params) for _, _, _, params, *_ in first}) == 7
    assert {reason for _, _, reason, *_ in first} == {"completed", "asha"}
    weights = [
        sorted(p.name for p in (tmp_path / "tlsearch_runs" / n).rglob("weights-*.safetensors"))
        for n in ("first", "second")
    ]
    assert weights[0] == weights[1] and len(weights[0]) == 7  # the names carry a hash of the content
