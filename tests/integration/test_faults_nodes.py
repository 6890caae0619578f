"""Three Ray nodes, one killed in the middle of a search: the others go on with its trials, and nothing has failed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import losing
import pytest
from search_checks import check_agreement
from search_doubles import make_plan, read_log

from tlsearch.core.types import TrialState
from tlsearch.search import read_search

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(900)]

SUPPORT = Path(losing.__file__).parent


def run_apart(script: Path, root: Path, tmp_path: Path) -> tuple[dict[str, Any], str]:
    """Runs a search with Ray nodes of its own in a process of its own; gives what it prints as JSON, and its log."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(tmp_path), "PYTHONPATH": f"{SUPPORT}{os.pathsep}{SUPPORT.parents[1]}", "OMP_NUM_THREADS": "1"}
    own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_worker_niceness": "0"}
    own["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="tlray-")  # sockets need a short path; and no other Ray must find it
    with open(tmp_path / "answer", "w") as answer, open(tmp_path / "errors", "w") as errors:
        command = [sys.executable, str(script), str(root)]
        done = subprocess.run(command, env={**kept, **own}, stdout=answer, stderr=errors, check=False, timeout=800)
    shutil.rmtree(own["RAY_TMPDIR"], ignore_errors=True)
    told = (tmp_path / "errors").read_text()
    assert done.returncode == 0, told
    answer_line = next(line for line in (tmp_path / "answer").read_text().splitlines() if line.startswith("{"))
    return json.loads(answer_line), told


def test_a_killed_node_fails_no_trial(tmp_path: Path) -> None:
    root = tmp_path / "s"
    found, told = run_apart(Path(losing.__file__), root, tmp_path)
    assert found["reason"] == "finished" and len(found["lost"]) == 1
    (lost,) = found["lost"]
    assert f"the worker of trial {lost} died (0 of them counted)" in told

    trials = read_search(root).trials
    assert [trial.number for trial in trials] == list(range(losing.TRIALS))
    assert {(trial.state, trial.epochs_run) for trial in trials} == {(TrialState.COMPLETE, losing.MAX_EPOCHS)}
    log = read_log(root)
    trained = Counter((line["number"], line["epoch"]) for line in log if line["what"] == "epoch")
    assert set(trained.values()) == {1}  # it went on from its checkpoint: no epoch was trained twice
    places = [line["what"] for line in log if line["number"] == lost and line["what"].startswith("node:")]
    assert len(places) == len(set(places)) == 2
    plan = make_plan(root, trials=losing.TRIALS, max_epochs=losing.MAX_EPOCHS, scheduler=None, max_failures=0)
    check_agreement(plan)
