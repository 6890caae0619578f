"""What a trial gets of the cluster, and how many trials it holds at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray

from tlsearch.core.errors import ClusterError
from tlsearch.search.cluster._private import draining_nodes

if TYPE_CHECKING:
    from tlsearch.config import ResourcesSpec

_REFRESH_S = 5.0  # how often the cluster is asked; it may grow or shrink


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of every node that is alive."""
    return [node for node in ray.nodes() if node["Alive"]]


def lasting_node_ids() -> set[str]:
    """Ids of the nodes that are alive and not about to go: a worker's death there is the trial's own."""
    return {node["NodeID"] for node in alive_nodes()} - draining_nodes()


def trial_resources(spec: ResourcesSpec, nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """CPUs and GPUs of one trial; ``gpus_per_trial`` auto is one where the cluster has any."""
    gpus = spec.gpus_per_trial
    if gpus is None:
        gpus = 1.0 if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes) else 0.0
    return {"cpu": float(spec.cpus_per_trial), "gpu": float(gpus)}


def num_slots(per_trial: Mapping[str, float], nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many trials the nodes hold at a time; a trial never spans two nodes."""
    slots = 0
    for node in nodes:
        have = node["Resources"]
        fits = [math.floor(have.get(name.upper(), 0) / need + 1e-9) for name, need in per_trial.items() if need > 0]
        slots += min(fits, default=0)
    return slots


class LiveLimit:
    """How many trials may be handed out at a time, following the cluster."""

    def __init__(
        self,
        per_trial: Mapping[str, float],
        max_concurrent: int | None,
        *,
        nodes: Callable[[], Sequence[Mapping[str, Any]]] = alive_nodes,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Looks at the cluster.

        Raises:
            ClusterError: No node holds a single trial.
        """
        self._per_trial, self._max, self._nodes, self._timer = per_trial, max_concurrent, nodes, timer
        self._slots = num_slots(per_trial, nodes())
        self._asked = timer()
        if not self._slots:
            raise ClusterError(
                f"one node must have the resources of a trial, {per_trial['cpu']:g} CPUs and "
                f"{per_trial['gpu']:g} GPUs; the cluster's nodes have {_describe(nodes())}: "
                "see resources.cpus_per_trial and resources.gpus_per_trial"
            )

    def __call__(self) -> int:
        """The limit now, at least 1."""
        if self._timer() - self._asked > _REFRESH_S:
            self._slots, self._asked = num_slots(self._per_trial, self._nodes()), self._timer()
        return max(1, min(self._slots, self._max or self._slots))


def _describe(nodes: Sequence[Mapping[str, Any]]) -> str:
    each = [f"{n['Resources'].get('CPU', 0):g} CPUs, {n['Resources'].get('GPU', 0):g} GPUs" for n in nodes]
    return "; ".join(each) or "no node is alive"
