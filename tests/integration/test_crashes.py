"""A search whose driver is killed -9 at a chosen point, resumed: study and MLflow as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import crashing
import pytest
from twice import told

from tlsearch.search import read_search, read_status
from tlsearch.tracking import mlflow_store

pytestmark = pytest.mark.timeout(900)

SUPPORT = Path(crashing.__file__).parent
POINTS = (
    "lock_taken:1",
    "after_ask:2",
    "shared_tensors:3",
    "after_checkpoint:4",
    "before_report_write:5",
    "after_report_write:3",
    "before_tell:2",
    "after_tell:1",
    "inside_append:4",
    "run_created:1",
    "run_created:3",
    "kept_model_made:1",
    "kept_model_files:2",
    "kept_model_ready:1",
)
PASSED_BY_TRIALS = ("shared_tensors", "after_checkpoint")  # in a worker's process they are no death of the driver


def environment(root: Path, point: str = "") -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(root), "PYTHONPATH": str(SUPPORT), "TLSEARCH_CACHE_DIR": str(root / "cache")}
    own |= {"TLSEARCH_STATE_DIR": str(root / "state"), "OMP_NUM_THREADS": "1"}
    return {**kept, **own} | ({"TLSEARCH_CRASH_AT": point} if point else {})


def run(root: Path, how: str, point: str = "") -> int:
    with open(root / "output", "w+") as output:  # a pipe would wait for all of Ray's processes
        command = [sys.executable, str(SUPPORT / "crashing.py"), str(root), how]
        return subprocess.run(
            command, env=environment(root, point), stdout=output, stderr=output, check=False, timeout=600
        ).returncode


def prepare(root: Path) -> None:
    """Images, space file and MLflow's empty database: making that one takes longer than the search."""
    crashing.prepare_root(root)
    mlflow_store.make_sqlite(f"sqlite:///{root}/mlflow.db")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same search, never killed."""
    root = tmp_path_factory.mktemp("whole")
    prepare(root)
    assert run(root, "here") == 0, (root / "output").read_text()
    crashing.check_mlflow(root)
    return root / "tlsearch_runs" / crashing.NAME


def check_killed_and_resumed(root: Path, how: str, point: str, whole: Path) -> None:
    prepare(root)
    assert run(root, how, point) == -signal.SIGKILL, (root / "output").read_text()
    folder = root / "tlsearch_runs" / crashing.NAME
    assert read_status(folder).holder is None
    assert run(root, how) == 0, (root / "output").read_text()
    assert told(read_search(folder)) == told(read_search(whole))
    assert not list(folder.glob("trials/*/running"))
    crashing.check_mlflow(root)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_where_trials_run_in_the_driver(tmp_path: Path, whole: Path, point: str) -> None:
    check_killed_and_resumed(tmp_path, "here", point, whole)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("point", [point for point in POINTS if point.split(":")[0] not in PASSED_BY_TRIALS])
def test_killed_where_trials_run_in_workers(tmp_path: Path, whole: Path, point: str) -> None:
    check_killed_and_resumed(tmp_path, "ray", point, whole)
