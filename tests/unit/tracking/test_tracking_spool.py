"""The spool's lines: what is written is read, and a torn line costs itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlsearch.tracking.entries import (
    DropModel,
    Entry,
    KeepModel,
    SearchEnd,
    SearchProgress,
    SearchStart,
    TrialEnd,
    TrialReport,
    TrialStart,
    WholeTrial,
    from_line,
    to_line,
)
from tlsearch.tracking.spool import Spool
from tlsearch.types import DataSetFacts

START = TrialStart(number=3, params={"backbone": "a\nb"}, at=1.5)
REPORT = TrialReport(number=3, epoch=1, metrics={"val_loss": 0.1}, timestamp=2.25)
END = TrialEnd(number=3, state="failed", reason="error", best_value=None, best_epoch=None, error="x", at=3.0)
ENTRIES: list[Entry] = [
    SearchStart(params={"trials": "4"}, artifacts={"space.yaml": "name: é\n"}, at=1.0),
    SearchStart(
        params={},
        artifacts={},
        at=1.0,
        description="**x**",
        data=DataSetFacts(
            name="emoji", digest="ab", source="/x", source_type="folder", images={"train": 9, "val": 3}, num_classes=3
        ),
    ),
    START,
    REPORT,
    END,
    SearchProgress(ended=1, metrics={"trials_failed": 1.0}, at=3.0),
    WholeTrial(start=START, reports=(REPORT,), end=END),
    WholeTrial(start=START, reports=(), end=None),
    KeepModel(number=3, checkpoint="/runs/x"),
    DropModel(number=3),
    SearchEnd(status="finished", artifacts={}, at=9.0),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_an_entry_survives_its_line(entry: Entry) -> None:
    line = to_line(entry)
    assert "\n" not in line
    assert from_line(line) == entry


@pytest.mark.parametrize("line", ["", "{", '{"kind":"Nothing"}', "[]", "3", '{"kind":"DropModel","other":1}'])
def test_a_strange_line_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):
        from_line(line)


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "new" / "spool.jsonl")
    assert spool.load() == []
    spool.append(ENTRIES[:4])
    spool.append(ENTRIES[4:])
    assert spool.load() == ENTRIES
    spool.replace(ENTRIES[6:])
    assert spool.load() == ENTRIES[6:]
    spool.replace([])
    assert not spool.path.exists()


def test_a_half_written_line_is_passed_over_and_not_glued(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.jsonl")
    spool.append(ENTRIES[:3])
    whole = spool.path.read_bytes()
    spool.path.write_bytes(whole[:-10])
    spool.append([END])
    assert spool.load() == [*ENTRIES[:2], END]
