"""A search on three Ray nodes of this machine, one of which is killed: ``python losing.py ROOT`` in an own process.

Prints which trials ran on the node when it died, as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_checks import behave
from search_doubles import StubTrial, make_plan, read_log

from tlsearch.core.types import RunningTrial, TrialAssignment

TRIALS, MAX_EPOCHS = 12, 6


class PlacedTrial(StubTrial):
    """Notes which node it runs on."""

    def __init__(self, assignment: TrialAssignment) -> None:
        import ray

        super().__init__(assignment)
        self._log(f"node:{ray.get_runtime_context().get_node_id()}", self.epochs_done)


def placed(assignment: TrialAssignment) -> RunningTrial:
    return PlacedTrial(assignment)


def main(root: Path) -> None:
    from ray.cluster_utils import Cluster

    from tlsearch.search import run_search

    logging.basicConfig(level=logging.WARNING)
    behave(root, {"all": {"sleep": 0.4}})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        cluster.wait_for_nodes()
        plan = make_plan(root, trials=TRIALS, max_epochs=MAX_EPOCHS, scheduler=None, max_failures=0)
        lost: list[int] = []
        killer = threading.Thread(target=kill_when_busy, args=(root, cluster, nodes[0], lost), daemon=True)
        killer.start()
        reason = run_search(replace(plan, address=cluster.address), factory=placed)
        print(json.dumps({"reason": reason, "lost": lost}), flush=True)
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def kill_when_busy(root: Path, cluster: Any, node: Any, lost: list[int]) -> None:
    """Kills the node once a trial on it has its second epoch behind it, and has more before it."""
    while not lost:
        lines = read_log(root)
        here = {line["number"] for line in lines if line["what"] == f"node:{node.node_id}"}
        for number in here:
            epochs = [line["epoch"] for line in lines if line["number"] == number and line["what"] == "epoch"]
            if 2 <= max(epochs, default=0) <= MAX_EPOCHS - 2:
                cluster.remove_node(node, allow_graceful=False)
                lost.append(number)
        time.sleep(0.05)  # polls what workers write


if __name__ == "__main__":
    main(Path(sys.argv[1]))
