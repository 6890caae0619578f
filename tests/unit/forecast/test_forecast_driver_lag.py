"""A simulated driver does one thing at a time, where what its answers cost is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tlsearch.core.types import EpochReport, TrialConfig
from tlsearch.forecast.simulation import Simulated, Start, simulate

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "many_nodes.py"


class Equal:
    """Trials that all begin at once."""

    def __init__(self, trials: int) -> None:
        self._left = trials

    def next(self, now: float) -> Start | None:
        if not self._left:
            return None
        self._left -= 1
        return Start(number=self._left, config=TrialConfig(backbone="a"), seed=0, suggest_s=0.0)

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        return report.epoch < 2

    def diverged(self, number: int, now: float) -> None:
        raise AssertionError


class TenSeconds:
    """A trial whose epochs take as long."""

    def opened(self, now: float) -> float:
        return now

    def epoch_end(self, epoch: int, now: float) -> float:
        return now + 10.0

    def report(self, epoch: int, now: float) -> EpochReport:
        return EpochReport(epoch=epoch, metrics={"val_accuracy": 0.5}, timestamp=now)


def run(slots: int, answer_s: Callable[[], float] | None, **options: bool) -> Simulated:
    trial = TenSeconds()
    return simulate(Equal(slots), lambda start: trial, slots=slots, answer_s=answer_s, **options)


def test_reports_that_come_at_once_are_answered_one_after_the_other() -> None:
    done = run(3, lambda: 1.0)
    # the second epochs end a second apart, as the first ones were answered
    assert done.lags_s == pytest.approx((1.0, 2.0, 3.0, 1.0, 1.0, 1.0))
    assert done.end_s == pytest.approx(10 + 3 + 10)


def test_answers_that_nobody_measures_cost_nothing() -> None:
    done = run(3, None)
    assert done.lags_s == () and done.end_s == pytest.approx(20.0) and len(done.reports) == 6
    assert run(3, None, keep_reports=False).reports == ()


@pytest.mark.slow
def test_the_simulation_of_many_nodes_runs_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"][-1]["trials"] == 300 and found["reports"] > 300
    assert found["rows"][-1]["lag_p99_ms"] >= found["rows"][-1]["lag_p50_ms"] > 0
