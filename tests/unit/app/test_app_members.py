"""The checkpoints of trials: kept ones as they are, evicted ones trained again, a killed training goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.combined import members
from tlsearch.app.combined.members import member_checkpoints
from tlsearch.core.errors import SearchStopped, UsageError
from tlsearch.results.promotion.test_split import checkpoint_digest


@pytest.fixture
def entry(ended_search: SearchEntry) -> SearchEntry:
    """The search without its models of trials 0 and 2; a whole copy is beside it."""
    shutil.copytree(ended_search.path, ended_search.path.with_name("copy"))
    for number in (0, 2):
        shutil.rmtree(ended_search.path / f"trials/{number}/best")
    return ended_search


def _members(entry: SearchEntry, numbers: Sequence[int], **more: Any) -> dict[int, Path]:
    file, _ = stored_file(entry, "")
    return dict(member_checkpoints(entry, file, numbers, **more))


def test_kept_and_evicted_members_are_the_search_s_own_models(entry: SearchEntry) -> None:
    found = _members(entry, [2, 0, 1, 0])
    assert {number: str(path.relative_to(entry.path)) for number, path in found.items()} == {
        0: "promoted/0/best",
        1: "trials/1/best",
        2: "promoted/2/best",
    }
    copy = entry.path.with_name("copy")
    for number in (0, 2):
        assert checkpoint_digest(found[number]) == checkpoint_digest(copy / f"trials/{number}/best")
    written = [path.stat().st_mtime_ns for path in found.values()]
    assert _members(entry, [0, 1, 2]) == found
    assert [path.stat().st_mtime_ns for path in found.values()] == written


def test_several_are_trained_at_a_time_on_the_resources_of_trials(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they take longer than a start of Ray; on a cluster always."""
    calls: list[tuple[str, int]] = []

    def run_tasks(work: Callable[..., str], items: Sequence[Any], resources: Any, *, address: str, done: Any) -> Any:
        calls.append((address, len(items)))
        assert resources.cpus_per_trial == 1
        return [work(item, 0.0) for item in items]

    monkeypatch.setitem(sys.modules, "tlsearch.search.ray_tune.tasks", SimpleNamespace(run_tasks=run_tasks))
    assert len(_members(entry, [0], address="10.0.0.1:6379")) == 1
    shutil.rmtree(entry.path / "promoted")
    monkeypatch.setattr(members, "_RAY_S", 0.0)
    assert len(_members(entry, [0, 1, 2])) == 3
    assert calls == [("10.0.0.1:6379", 1), ("local", 2)]


def test_a_training_that_was_killed_goes_on(entry: SearchEntry) -> None:
    script = (
        "import json, sys; from pathlib import Path\n"
        "from tlsearch.app.catalog.catalog import SearchEntry\n"
        "from tlsearch.app.catalog.stored import stored_file\n"
        "from tlsearch.app.combined.members import member_checkpoints\n"
        "entry = SearchEntry(**json.loads(Path(sys.argv[1]).read_text()))\n"
        "member_checkpoints(entry, stored_file(entry, '')[0], [0, 2])\n"
    )
    environment = {**os.environ, "TLSEARCH_CRASH_AT": "member_trained"}
    died = subprocess.run([sys.executable, "-c", script, str(entry.path / "search.json")], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    done = entry.path / "promoted/0/best/checkpoint.json"
    written = done.stat().st_mtime_ns
    assert not (entry.path / "promoted/2").exists()
    (entry.path / "promoted/2/best").mkdir(parents=True)  # as of a death before the first running checkpoint
    shutil.copy(entry.path.with_name("copy") / "trials/2/best/checkpoint.json", entry.path / "promoted/2/best")
    assert len(_members(entry, [0, 2])) == 2
    assert done.stat().st_mtime_ns == written
    assert json.loads((entry.path / "promoted/2/trained.json").read_text()) == {
        "epoch": read_record(entry).trials[2].best_epoch
    }


def test_what_cannot_be_is_said(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no trial 7; it has 3"):
        _members(entry, [0, 7])
    with pytest.raises(SearchStopped, match="trials 0, 2 could not be trained again: OSError: gone"):
        monkeypatch.setattr(members, "train_to", lambda assignment, epoch: "OSError: gone")
        _members(entry, [0, 2])
