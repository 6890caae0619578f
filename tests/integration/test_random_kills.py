"""A replayed search on Ray with MLflow, its driver killed -9 twenty times at random moments."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import crashing
import pytest
from preparing import prepare_resume
from search_checks import check_decisions
from test_crashes import SUPPORT, environment

from tlsearch.app.catalog import catalog
from tlsearch.app.searches.execute import search_plan
from tlsearch.search import read_search

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3000)]

RECORDED = Path(__file__).parents[2] / "benchmarks" / "curves" / "emoji_few.json"
TRIALS = 60
KILLS = int(os.environ.get("TLSEARCH_TEST_KILLS", "20"))


def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    crashing.prepare_root(tmp_path, TRIALS, crashing.REPLAYED)
    shutil.copy(RECORDED, tmp_path / "curves.json")
    folder, chance = tmp_path / "tlsearch_runs" / crashing.NAME, random.Random(11)
    kills = 0
    while kills < KILLS:
        before = _num_reports(folder)
        with open(tmp_path / "output", "w") as output:
            command = [sys.executable, str(SUPPORT / "crashing.py"), str(tmp_path), "replay"]
            driver = subprocess.Popen(command, env=environment(tmp_path), stdout=output, stderr=output)
        while driver.poll() is None and _num_reports(folder) == before:
            time.sleep(0.1)  # polls another process's file
        time.sleep(chance.uniform(0.0, 2.5))
        if driver.poll() is not None:
            break
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        kills += 1
    else:
        with open(tmp_path / "output", "w") as output:
            driver = subprocess.Popen(command, env=environment(tmp_path), stdout=output, stderr=output)
        driver.wait()
    assert driver.returncode == 0, (tmp_path / "output").read_text()
    assert kills >= KILLS // 2
    record = read_search(folder)
    assert [trial.number for trial in record.trials] == list(range(TRIALS))
    assert all(trial.reason in ("completed", "asha", "diverged") for trial in record.trials)
    for trial in record.trials:
        assert [report.epoch for report in trial.reports] == list(range(1, trial.epochs_run + 1))
    check_decisions(search_plan(prepare_resume(catalog.find(crashing.NAME, tmp_path / "tlsearch_runs"))))
    crashing.check_mlflow(tmp_path, models=False)


def _num_reports(folder: Path) -> int:
    journal = folder / "study.journal"
    return journal.read_bytes().count(b'"report:') if journal.exists() else 0
