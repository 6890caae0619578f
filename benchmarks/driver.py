#!/usr/bin/env python3
"""For how long a search's driver stands still for its study and for MLflow.

    driver.py --data EMOJI --weights mobilenet_v2.pth [--trials 24] [--epochs 10]

`tlsearch run` of head-only trials in this process, in a fresh folder with empty caches: seconds that its main thread
spent in the calls of the study and of MLflow, their share of the wall time, and the CPU of the threads that write to
MLflow beside it. A table of figures and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HEAD_ONLY = """
name: driver
data: {{source: folder, path: {data}, image_size: 96}}
weights: {{mobilenet_v2: {weights}}}
space:
  backbone: mobilenet_v2
  unfreeze_depth: 0
  head_lr: {{log: [1.0e-3, 2.0e-2]}}
  head_init: random
  batch_size: 32
search: {{trials: {trials}, max_epochs: {epochs}, scheduler: none}}
"""


def watch_driver() -> dict[str, float]:
    """Times this process's calls from now on: seconds that the main thread waits, and CPU of the threads beside it."""
    from tlsearch.search.controller.controller import Controller
    from tlsearch.tracking import MlflowTracker
    from tlsearch.tracking.sink.worker import Worker

    seconds = {"study_wait_s": 0.0, "mlflow_wait_s": 0.0, "beside_cpu_s": 0.0}

    def timed(whole: Any, wait: str) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            started, cpu = time.perf_counter(), time.thread_time()
            try:
                return whole(*args, **more)
            finally:
                if threading.current_thread() is threading.main_thread():
                    seconds[wait] += time.perf_counter() - started
                else:
                    seconds["beside_cpu_s"] += time.thread_time() - cpu

        return call

    told = ("search_started", "trial_started", "trial_reported", "trial_ended", "keep_model", "search_ended")
    for owner, wait, methods in (
        (Controller, "study_wait_s", ("next_trial", "report", "fail")),
        (MlflowTracker, "mlflow_wait_s", (*told, "flush", "close")),
        (Worker, "mlflow_wait_s", ("_deliver",)),
    ):
        for method in methods:
            setattr(owner, method, timed(getattr(owner, method), wait))
    return seconds


def measured(options: argparse.Namespace, root: Path) -> dict[str, float]:
    """A whole search in a folder, its driver's calls timed."""
    from tlsearch.cli import main as command_line

    given = {"data": json.dumps(str(options.data.resolve())), "weights": json.dumps(str(options.weights.resolve()))}
    text = HEAD_ONLY.format(trials=options.trials, epochs=options.epochs, **given)
    (root / "space.yaml").write_text(text, encoding="utf-8")
    os.environ |= {"TLSEARCH_STATE_DIR": f"{root}/state", "TLSEARCH_CACHE_DIR": f"{root}/cache"}
    os.chdir(root)
    seconds = watch_driver()
    started = time.perf_counter()
    sys.argv[1:] = ["run", "space.yaml", "--name", "driver"]
    try:
        command_line()
    except SystemExit as ended:
        if ended.code:  # a search that failed has no figures
            raise
    wall_s = time.perf_counter() - started
    return {"wall_s": wall_s, **seconds, "share": (seconds["study_wait_s"] + seconds["mlflow_wait_s"]) / wall_s}


def main() -> None:
    """Runs the search and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="mobilenet_v2's state dict")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three trials of two epochs: no figure")
    options = parser.parse_args()
    if options.quick:
        options.trials, options.epochs = 3, 2
    with tempfile.TemporaryDirectory(prefix="tld-") as folder:
        figures = measured(options, Path(folder))
    for name, value in figures.items():
        print(f"{name:14} {value:8.3f}")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "driver", "machine": machine, "trials": options.trials, **figures}))


if __name__ == "__main__":
    main()
