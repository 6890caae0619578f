"""A search on three Ray nodes of this machine, two of which get a drain warning: ``python drained.py ROOT``.

One of them is killed while its trial has epochs before it, as a spot node is; the other lets its trial end. Prints
what ran on each when the warning came, as JSON.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from losing import PlacedTrial
from search_checks import behave
from search_doubles import make_plan, read_log

from tlsearch.core.types import EpochReport, RunningTrial, TrialAssignment
from tlsearch.search.plan import SearchPlan

TRIALS, MAX_EPOCHS = 5, 60
WARNED = "warned"  # a file of the search's folder: the nodes have been warned


class WaitingTrial(PlacedTrial):
    """Takes its third epoch when the nodes have been warned, however long that takes."""

    def step(self) -> EpochReport:
        while self.epochs_done == 2 and not (self._root / WARNED).exists():
            time.sleep(0.05)  # polls what another process writes
        return super().step()


def waiting(assignment: TrialAssignment) -> RunningTrial:
    return WaitingTrial(assignment)


def made_plan(root: Path) -> SearchPlan:
    """Trials that wait for no other one, so that each node has its own when the warning comes."""
    points = [{"head_lr": 1e-3 * (number + 1)} for number in range(TRIALS)]
    more: dict[str, Any] = {"sampler": "fixed", "start_with": points, "scheduler": None, "max_failures": 0}
    return make_plan(root, trials=TRIALS, max_epochs=MAX_EPOCHS, **more)


def main(root: Path) -> None:
    from ray.cluster_utils import Cluster

    from tlsearch.search import run_search

    logging.basicConfig(level=logging.WARNING)
    behave(root, {"all": {"sleep": 0.3, "checkpoint": False}})  # no checkpoint but those that a warning asks for
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    killed, spared = (cluster.add_node(num_cpus=1) for _ in range(2))
    try:
        cluster.wait_for_nodes()
        plan = made_plan(root)
        found: dict[str, Any] = {}
        actor = threading.Thread(target=take_away, args=(root, cluster, killed, spared, found), daemon=True)
        actor.start()
        found["reason"] = run_search(replace(plan, address=cluster.address), factory=waiting)
        actor.join(60)
        print(json.dumps(found), flush=True)
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


def take_away(root: Path, cluster: Any, killed: Any, spared: Any, found: dict[str, Any]) -> None:
    """Warns both nodes once their first trials have begun, then kills one of them just after a checkpoint."""
    lost, kept = (_trial_on(root, node.node_id, epochs=2) for node in (killed, spared))
    for node in (killed, spared):
        drain(cluster.address, node.node_id)
    (root / WARNED).touch()
    saved = _wait(lambda: _epochs(root, lost, "save"))
    saved = _wait(lambda: (now := _epochs(root, lost, "save"))[len(saved) :] and now)  # the next one has just come
    cluster.remove_node(killed, allow_graceful=False)
    found |= {"killed": killed.node_id, "spared": spared.node_id, "lost": lost, "kept": kept, "saved": saved[-1]}


def drain(address: str, node_id: str) -> None:
    """The warning as a cloud's or Kubernetes' own watcher gives it."""
    command = ["ray", "drain-node", "--address", address, "--node-id", node_id, "--deadline-remaining-seconds", "600"]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a spot node is taken back"]
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True, stdout=sys.stderr)


def _trial_on(root: Path, node_id: str, *, epochs: int) -> int:
    def look() -> list[int]:
        here = [line["number"] for line in read_log(root) if line["what"] == f"node:{node_id}"]
        return [number for number in here if len(_epochs(root, number, "epoch")) >= epochs]

    return int(_wait(look)[0])


def _epochs(root: Path, number: int, what: str) -> list[int]:
    return [line["epoch"] for line in read_log(root) if line["number"] == number and line["what"] == what]


def _wait(look: Any, timeout_s: float = 300) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        time.sleep(0.05)  # polls what workers write
    raise AssertionError("it did not happen in time")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
