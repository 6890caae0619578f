"""Work on the resources of trials, on a real Ray: in order, several at a time, again where a worker dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tlsearch.config.schema import ResourcesSpec
from tlsearch.core.errors import ClusterError
from tlsearch.search.ray_tune.tasks import run_tasks

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


def test_results_come_in_order_and_a_dead_worker_s_piece_is_begun_again(tmp_path: Path) -> None:
    folder = str(tmp_path)
    done: list[tuple[int, float]] = []

    def work(item: int, gpus: float) -> tuple[int, float]:
        first = Path(folder, f"{item}.begun")
        if item == 1 and not first.exists():
            first.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2 * (3 - item))
        return item * 10, gpus

    found = run_tasks(work, [0, 1, 2], ResourcesSpec(max_concurrent=2), done=lambda item, result: done.append(result))
    assert found == [(0, 0.0), (10, 0.0), (20, 0.0)]
    assert sorted(done) == found


def test_errors_are_the_work_s_own_and_resources_must_exist() -> None:
    def work(item: int, gpus: float) -> int:
        raise ValueError(f"piece {item}")

    with pytest.raises(ValueError, match="piece 5"):
        run_tasks(work, [5], ResourcesSpec())
    with pytest.raises(ClusterError, match="the resources of a trial, 4000 CPUs"):
        run_tasks(work, [5], ResourcesSpec(cpus_per_trial=4000))
