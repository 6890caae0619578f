#!/usr/bin/env python3
"""What it costs to spread a search over nodes: three against one, with the same CPUs in all.

    nodes.py [--nodes 3] [--cpus 6] [--trials 24] [--speed 2] [--rounds 2]

Each run is a process with a Ray cluster of its own on this machine: a head that runs no trial, and workers as
separate raylets. Trials replay recorded curves and sleep as long as the real ones took, divided by the speed, so that
what is seen is the search's own work: hand-outs, reports, the study, checkpoints in one folder, messages between
nodes. The same seeds give the same trials on both sides. Wall time is that of the whole search, workers' start and
end included; the sides take turns. Prints the ratio of the medians, and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CURVES = Path(__file__).resolve().parent / "curves" / "emoji_few.json"
SPACE = """
name: nodes
data: {{source: digits}}
weights: {{mobilenet_v2: none, timm/tf_efficientnet_lite0: none}}
space:
  backbone: [mobilenet_v2, timm/tf_efficientnet_lite0]
  unfreeze_depth: {{int: [0, 5]}}
  head_lr: {{log: [1.0e-3, 1.0e-2]}}
  backbone_lr: {{log: [1.0e-4, 2.0e-3]}}
search: {{trials: {trials}, max_epochs: 6, scheduler: none, sampler: random}}
"""


def search_once(root: Path, *, nodes: int, cpus: int, trials: int, speed: float) -> dict[str, Any]:
    """One search on a cluster of this process's own."""
    import ray
    from ray.cluster_utils import Cluster

    from tlsearch.search import SearchPlan, read_search, run_search
    from tlsearch.space import load
    from tlsearch.testing.replay import Replay

    path = root / "space.yaml"
    path.write_text(SPACE.format(trials=trials), encoding="utf-8")
    file, space = load(path)
    plan = SearchPlan(
        search_id="nodes",
        experiment="nodes",
        directory=str(root / "nodes"),
        space=space,
        setup=file.trial_setup(),
        search=file.search,
        resources=file.resources,
    )
    shared = {"object_store_memory": 80_000_000, "temp_dir": str(root / "ray")}  # not the machine's own Ray folder
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **shared})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=cpus // nodes, **shared)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        started, busy = time.perf_counter(), time.process_time()
        reason = run_search(plan, factory=Replay(path=str(CURVES), speed=speed))
        wall_s, driver_s = time.perf_counter() - started, time.process_time() - busy
        ray.shutdown()
    finally:
        cluster.shutdown()
    record = read_search(root / "nodes")
    reports = sum(trial.epochs_run for trial in record.trials)
    slept_s = sum(report.metrics["epoch_seconds"] for trial in record.trials for report in trial.reports) / speed
    assert reason == "finished" and len(record.trials) == trials
    return {"wall_s": wall_s, "driver_cpu_s": driver_s, "reports": reports, "slept_s": slept_s}


def measure(nodes: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="tln-") as folder:
        command = [sys.executable, __file__, "--child", folder, "--nodes", str(nodes), "--cpus", str(options.cpus)]
        command += ["--trials", str(options.trials), "--speed", str(options.speed)]
        environment = {
            **os.environ,
            "HOME": folder,
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",  # 15 by default: a busy machine would be measured, not the search
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Both sides in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=6, help="of all nodes together; a multiple of --nodes")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--speed", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        found = search_once(
            options.child, nodes=options.nodes, cpus=options.cpus, trials=options.trials, speed=options.speed
        )
        print(json.dumps(found))
        return
    runs: dict[int, list[dict[str, Any]]] = {1: [], options.nodes: []}
    for number in range(options.rounds):
        for nodes in (1, options.nodes) if number % 2 == 0 else (options.nodes, 1):
            found = measure(nodes, options)
            runs[nodes].append(found)
            print(
                f"{nodes} nodes: {found['wall_s']:.1f} s, driver {found['driver_cpu_s']:.1f} s of CPU, "
                f"{found['reports']} reports, {found['slept_s'] / options.cpus:.1f} s of trials on each CPU",
                flush=True,
            )
    medians = {nodes: statistics.median(one["wall_s"] for one in found) for nodes, found in runs.items()}
    ratio = medians[options.nodes] / medians[1]
    print(f"{options.nodes} nodes over 1, {options.cpus} CPUs in all: {ratio:.3f}")
    print(json.dumps({"ratio": ratio, "runs": runs, "cpus": options.cpus, "machine": platform.machine()}))


if __name__ == "__main__":
    main()
