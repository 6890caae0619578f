"""What stops a start on a cluster before any GPU is held, and that an own Ray is asked nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from preparing import prepare, prepare_resume

from tlsearch.app.catalog.catalog import RESOLVED
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.config import SpaceFile
from tlsearch.core.errors import ClusterError
from tlsearch.core.types import Finding
from tlsearch.doctor import environment

TEXT = """
name: small
data: {source: digits, image_size: 32}
weights: {mobilenet_v3_small: none}
space: {backbone: mobilenet_v3_small}
"""
OK = Finding(name="mlflow", status="ok", text="it answers")
WRONG = Finding(name="data on n-2", status="fail", text="/data is not there or cannot be read", advice="mount it")
OLD = Finding(name="version of torch", status="fail", text="the driver has 2.14.1; n-2 has 2.13.0")
LOW = Finding(name="disk of n-2", status="warn", text="3.0 GB are free", advice="free some room")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were looked at; every node has something amiss."""
    addresses: list[str] = []

    def nodes(address: str, file: SpaceFile) -> list[Finding]:
        addresses.append(address)
        return [WRONG, OLD, LOW]

    monkeypatch.setattr(environment, "tracking_finding", lambda uri, experiment: OK)
    monkeypatch.setattr(environment, "_nodes", nodes)
    return addresses


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(TEXT)
    return path


def test_all_problems_are_told_at_once_and_nothing_is_made(
    space: Path, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ClusterError) as told:
        prepare(RunOptions(file=space, address="10.0.0.1:6379", name="one"))
    assert str(told.value).splitlines() == [
        "the search cannot run on this cluster:",
        "data on n-2: /data is not there or cannot be read",
        "  -> mount it",
        "version of torch: the driver has 2.14.1; n-2 has 2.13.0",
    ]
    assert asked == ["10.0.0.1:6379"] and not (space.parent / "tlsearch_runs" / "one").exists()
    assert [one.getMessage() for one in caplog.records] == ["disk of n-2: 3.0 GB are free; free some room"]


def test_an_own_ray_is_asked_nothing_and_a_resume_asks_again(space: Path, asked: list[str]) -> None:
    entry = prepare(RunOptions(file=space, name="one")).entry
    assert asked == [] and (entry.path / RESOLVED).exists()
    prepare_resume(entry)
    assert asked == []
    with pytest.raises(ClusterError, match="data on n-2"):
        prepare_resume(entry, address="auto")
    assert asked == ["auto"]


def test_what_is_only_a_warning_stops_nothing(space: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_nodes", lambda address, file: [OK, LOW])
    assert prepare(RunOptions(file=space, address="10.0.0.1:6379", name="one")).address == "10.0.0.1:6379"
