"""What a trial gets of the cluster, and how many trials it holds at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from tlsearch.core.errors import ClusterError
from tlsearch.search.cluster._private import draining_nodes
from tlsearch.search.scheduling.packing import COUNTS, Shares, has_room, num_slots
from tlsearch.search.worker.messages import unpack_job

if TYPE_CHECKING:
    from tlsearch.config import ResourcesSpec

_REFRESH_S = 5.0  # how often the cluster is asked; it may grow or shrink


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of every node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def lasting_node_ids() -> set[str]:
    """Ids of the nodes that are alive and not about to go: a worker's death there is the trial's own."""
    return {node["NodeID"] for node in alive_nodes()} - draining_nodes()


def settle_shares(shares: Shares, spec: ResourcesSpec, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Says which fraction of a GPU trials get: ``gpus_per_trial``, none where the cluster has none, or what fits.

    A device is shared by as many trials as its node has CPUs for.
    """
    with_gpus = [node["Resources"] for node in nodes if node["Resources"].get("GPU", 0) >= 1]
    shares.fixed = spec.gpus_per_trial if spec.gpus_per_trial is not None or with_gpus else 0.0
    held = [int(have.get("CPU", 0) / have["GPU"] / spec.cpus_per_trial) for have in with_gpus]
    shares.most = max(1, min([*held, max(COUNTS)]))


def job_resources(cpus: float, config: Mapping[str, Any]) -> dict[str, float]:
    """What Ray holds for a trial of this config, in which its job says its fraction of a GPU."""
    return {"cpu": cpus, "gpu": unpack_job(config).assignment.gpus or 0.0}


class Room:
    """Whether another trial may be handed out, following the cluster."""

    def __init__(
        self,
        spec: ResourcesSpec,
        share: float,
        *,
        nodes: Callable[[], Sequence[Mapping[str, Any]]] = alive_nodes,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks at the cluster.

        Args:
            spec: CPUs of a trial, and how many may run at a time.
            share: The usual fraction of a GPU now.

        Raises:
            ClusterError: No node holds a single trial.
        """
        self._cpus, self._max, self._ask, self._timer = float(spec.cpus_per_trial), spec.max_concurrent, nodes, timer
        self._slots: dict[float, int] = {}
        self._look()
        if not self._num_slots(share):
            raise ClusterError(
                f"one node must have the resources of a trial, {self._cpus:g} CPUs and {share:g} GPUs; the cluster's "
                f"nodes have {_describe(self._nodes)}: see resources.cpus_per_trial and resources.gpus_per_trial"
            )

    def __call__(self, live: Sequence[float], share: float) -> bool:
        """Whether there is room beside the trials that were handed out; always for one.

        Args:
            live: The fraction of a GPU of each of them.
            share: The usual fraction.
        """
        if self._timer() - self._asked > _REFRESH_S:
            self._look()
        if not live:
            return True
        return len(live) < (self._max or math.inf) and has_room(live, share, self._num_slots(share))

    def _look(self) -> None:
        self._nodes, self._asked = self._ask(), self._timer()
        self._slots.clear()

    def _num_slots(self, share: float) -> int:
        if share not in self._slots:
            self._slots[share] = num_slots(self._cpus, share, self._nodes)
        return self._slots[share]


def _describe(nodes: Sequence[Mapping[str, Any]]) -> str:
    each = [f"{n['Resources'].get('CPU', 0):g} CPUs, {n['Resources'].get('GPU', 0):g} GPUs" for n in nodes]
    return "; ".join(each) or "no node is alive"
