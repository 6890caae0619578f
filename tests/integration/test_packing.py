"""Trials that share GPUs on a real Ray; its two GPUs are fakes, so what is tested is what Ray counts and places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import search_doubles
from search_doubles import StubTrial, make_plan, read_log

from tlsearch.config import ResourcesSpec
from tlsearch.core.errors import Infeasible
from tlsearch.core.types import EpochReport
from tlsearch.search import read_search, run_search

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

TRIALS, HEAVY = 8, 3
_TOGETHER_S = 120.0  # eight processes start on whatever cores there are


class SharingTrial(StubTrial):
    """Waits in its first epoch until all trials run, so that they run at once or never; HEAVY needs more memory."""

    def step(self) -> EpochReport:
        folder = self._directory.parents[1] / "together"
        folder.mkdir(exist_ok=True)
        here, mine = self._assignment, {"gpus": self._assignment.gpus, "devices": os.environ["CUDA_VISIBLE_DEVICES"]}
        if here.gpus is not None and here.gpus < 1:
            (folder / str(here.number)).write_text(json.dumps(mine))
            until = time.monotonic() + _TOGETHER_S
            while len(list(folder.iterdir())) < TRIALS and time.monotonic() < until:
                time.sleep(0.1)
            if here.number == HEAVY and self.epochs_done == 1:
                raise Infeasible("out of memory with a micro-batch of 1")
        else:
            (self._directory / "alone.json").write_text(json.dumps(mine))
        return super().step()


def search(root: Path) -> None:
    """Runs in a process of its own, with its own Ray."""
    import ray

    from tlsearch.search.cluster.connect import settle_authentication

    settle_authentication("local")
    ray.init(address="local", num_cpus=TRIALS, num_gpus=2, log_to_driver=False)
    points = [{"head_lr": 1e-3 * (number + 1)} for number in range(TRIALS)]  # none waits for another
    plan = make_plan(root, trials=TRIALS, sampler="fixed", start_with=points, scheduler=None, max_epochs=2)
    plan = replace(plan, resources=ResourcesSpec(gpus_per_trial=0.25))
    assert run_search(plan, factory=SharingTrial) == "finished"
    ray.shutdown()


def test_eight_trials_share_two_devices_and_one_that_runs_out_of_memory_gets_a_whole_one(tmp_path: Path) -> None:
    root = tmp_path / "s"
    support = str(Path(search_doubles.__file__).parent)
    code = f"import test_packing, pathlib; test_packing.search(pathlib.Path({str(root)!r}))"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": f"{support}:{Path(__file__).parent}"}
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shared: list[dict[str, Any]] = [json.loads(one.read_text()) for one in sorted((root / "together").iterdir())]
    assert sorted(one["devices"] for one in shared) == ["0"] * 4 + ["1"] * 4
    assert {one["gpus"] for one in shared} == {0.25}
    alone = json.loads((root / "trials" / str(HEAVY) / "alone.json").read_text())
    assert alone["gpus"] == 1.0 and alone["devices"] in ("0", "1")
    record = read_search(root)
    assert [(trial.reason, trial.epochs_run) for trial in record.trials] == [("completed", 2)] * TRIALS
    epochs = [(line["number"], line["epoch"]) for line in read_log(root) if line["what"] == "epoch"]
    assert sorted(epochs) == [(number, epoch) for number in range(TRIALS) for epoch in (1, 2)]  # nothing lost or twice
