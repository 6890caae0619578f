"""Work beside a search, on the resources that its trials have: several pieces at a time, wherever Ray has room."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import RayError

from tlsearch.core.errors import ClusterError
from tlsearch.core.text import first_line
from tlsearch.search.cluster.connect import connected
from tlsearch.search.ray_tune.resources import Room, alive_nodes

if TYPE_CHECKING:
    from tlsearch.config import ResourcesSpec

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_RETRIES = 3  # of one piece, where its worker or its node has died
_LOOK_S = 0.5  # how often it looks whether it is to stop


def run_tasks(
    work: Callable[[_Item, float], _Result],
    items: Sequence[_Item],
    resources: ResourcesSpec,
    *,
    address: str = "local",
    done: Callable[[_Item, _Result], None] | None = None,
    stop: threading.Event | None = None,
) -> list[_Result]:
    """Calls ``work(item, gpus)`` for each item, as many at a time as the resources of a trial allow.

    A piece whose worker dies is begun again, so ``work`` must go on from what it left, or repeat it.

    Args:
        work: A function of a module, which workers import by its name. ``gpus`` is the fraction of a device that the
            piece has: what ``gpus_per_trial`` says, and with auto a whole one where the cluster has any.
        items: What travels to the workers.
        resources: Of one piece, as of one trial.
        address: As for `SearchPlan`.
        done: Hears of each item that is done, with what ``work`` gave, on this thread.
        stop: When set, no piece begins any more and those that run are ended.

    Returns:
        What ``work`` gave, in the order of the items; after ``stop`` only for those that were done.

    Raises:
        ClusterError: Ray cannot be reached, no node has the resources, or workers died too often.
        Exception: What ``work`` has raised.
    """
    with connected(address):
        gpus = _gpus(resources)
        Room(resources, gpus)  # says where no node holds a single piece: Ray would wait for one without end
        call = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=gpus, max_retries=_RETRIES)(work)
        waiting = list(enumerate(items))[::-1]
        running: dict[Any, int] = {}
        results: dict[int, _Result] = {}
        while (waiting or running) and not (stop is not None and stop.is_set()):
            while waiting and len(running) < (resources.max_concurrent or len(items)):
                place, item = waiting.pop()
                running[call.remote(item, gpus)] = place
            for ended in ray.wait(list(running), num_returns=1, timeout=_LOOK_S)[0]:
                place = running.pop(ended)
                results[place] = _result(ended)
                if done is not None:
                    done(items[place], results[place])
        for left in running:
            ray.cancel(left, force=True)
        return [results[place] for place in sorted(results)]


def _gpus(resources: ResourcesSpec) -> float:
    if resources.gpus_per_trial is not None:
        return resources.gpus_per_trial
    return float(any(node["Resources"].get("GPU", 0) >= 1 for node in alive_nodes()))


def _result(ended: Any) -> Any:
    try:
        return ray.get(ended)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        raise ClusterError(
            f"the workers of a piece of work died {_RETRIES + 1} times; what is done is kept, and the same command "
            f"goes on. Ray says: {first_line(error)}"
        ) from error
