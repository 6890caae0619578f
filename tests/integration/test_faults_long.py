"""A long search: 1,000 replayed trials over 16 logical slots, looked at while it runs.

What it costs is printed: the driver's CPU time per trial, its memory, and how long ``status`` and ``results`` take.
"""

from __future__ import annotations

import os
import shutil
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
from tlsearch.app.views.outcome import read_leaderboard
from tlsearch.app.views.status import overview
from tlsearch.search import read_search

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(3600)]

RECORDED = Path(__file__).parents[2] / "benchmarks" / "curves" / "emoji_few.json"
TRIALS = int(os.environ.get("TLSEARCH_TEST_LONG_TRIALS", "1000"))
SLOTS = min(16, TRIALS // 20)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_thousand_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crashing.prepare_root(tmp_path, TRIALS, crashing.REPLAYED)
    shutil.copy(RECORDED, tmp_path / "curves.json")
    storage = tmp_path / "tlsearch_runs"
    seen: list[tuple[float, ...]] = []
    with open(tmp_path / "output", "w") as output:
        command = [sys.executable, str(SUPPORT / "crashing.py"), str(tmp_path), "replay", str(SLOTS)]
        driver = subprocess.Popen(command, env=environment(tmp_path), stdout=output, stderr=output)
        while driver.poll() is None:
            time.sleep(1.0)  # polls another process's files
            if not (storage / crashing.NAME / "study.journal").exists():
                continue
            entry = catalog.find(crashing.NAME, storage)
            begin = time.monotonic()
            state = overview(entry)
            told_s = time.monotonic() - begin
            ended = sum(trial.ended is not None for trial in state.status.record.trials)
            if driver.poll() is None and ended >= len(seen) * (TRIALS // 10):
                rows = read_leaderboard(entry, run_ids=True).rows
                assert len(rows) >= ended
                listed_s = time.monotonic() - begin - told_s
                seen.append((ended, cpu_s(driver.pid), memory_mb(driver.pid), told_s, listed_s, time.monotonic()))
    assert driver.returncode == 0, (tmp_path / "output").read_text()[-4000:]
    with capsys.disabled():
        print("\ntrials, driver CPU ms a trial, wall ms a trial, driver MB, status s, results s")
        for before, now in zip(seen, seen[1:], strict=False):
            count = now[0] - before[0]
            costs = [1000 * (now[place] - before[place]) / count for place in (1, 5)]
            print(f"{now[0]}, {costs[0]:.1f}, {costs[1]:.1f}, {now[2]:.0f}, {now[3]:.2f}, {now[4]:.2f}")
    record = read_search(storage / crashing.NAME)
    assert [trial.number for trial in record.trials] == list(range(TRIALS))
    assert all(trial.reason in ("completed", "asha", "diverged") for trial in record.trials)
    check_decisions(search_plan(prepare_resume(catalog.find(crashing.NAME, storage))))
    assert len(seen) >= 5  # it was looked at while it ran
    crashing.check_mlflow(tmp_path, models=False)
