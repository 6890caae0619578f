"""A Ray worker for trials: a class Trainable whose actor is reused, and which looks for a drain warning of its node."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import Trainable

from tlsearch.core.errors import ClusterError
from tlsearch.core.imports import quick_import
from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import RunningTrial, TrialAssignment, TrialFactory
from tlsearch.search.cluster._private import draining_nodes
from tlsearch.search.json_logs import WorkerLog
from tlsearch.search.worker.messages import pack, telling, unpack_job
from tlsearch.search.worker.trial_runner import Gauge, Runner

logger = logging.getLogger(__name__)

_EVERY_S = 5.0  # a warning comes 30 s or more before the end; 1,000 workers ask Ray 200 times a second


class DrainWatch:
    """Called, it tells whether the node has a drain warning; a warning is never taken back."""

    def __init__(
        self, node: str, *, ask: Callable[[], Collection[str]] = draining_nodes, every_s: float = _EVERY_S
    ) -> None:
        """Begins to ask, at once and then again and again.

        Args:
            node: The id of this worker's node.
            ask: The ids of all nodes that are about to go.
            every_s: Seconds between two questions.
        """
        self._node, self._ask, self._every_s = node, ask, every_s
        self._leaving, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="drain-watch", daemon=True)
        self._thread.start()

    def __call__(self) -> bool:
        """Whether this node is about to go, as far as is known."""
        return self._leaving.is_set()

    def close(self) -> None:
        """Asks no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                if self._node in self._ask():
                    logger.info("node %s is about to go: every epoch ends with a checkpoint", self._node)
                    self._leaving.set()
                    return
            except RayError as error:
                logger.debug("the draining nodes cannot be had now: %s", error)
            self._closed.wait(self._every_s)


def fine_tuning(assignment: TrialAssignment) -> RunningTrial:
    """Opens the real trial; torch is imported here, in the worker, and never by the driver."""
    quick_import("tlsearch.trial")
    from tlsearch.trial import open_running

    return open_running(assignment)


def trial_measures(assignment: TrialAssignment, names: Sequence[str]) -> Mapping[str, float]:
    """Measures a real trial's model on this worker's device."""
    from tlsearch.trial import trial_latency

    return {"latency_ms": trial_latency(assignment)} if "latency_ms" in names else {}


def device_taken() -> str:
    """What other processes hold of a real trial's whole device, in words; empty for little."""
    if "torch" not in sys.modules:
        return ""
    from tlsearch.trial import taken_by_others

    return taken_by_others()


class TrialWorker(Trainable):
    """Runs one trial after another; ``make_worker`` sets the factory.

    Nothing of a trial is opened before ``step``, where its runner catches what it raises: the actor,
    with all that it has imported, stays.
    """

    factory: TrialFactory
    gauge: Gauge
    _begun: bool  # whether the trial has taken a step here
    _first = True  # the first step of this process imports what all need

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the first trial."""
        assignment = unpack_job(config).assignment
        search = Path(assignment.directory).parents[1]
        self._doing = SearchFolder(root=search).doing(assignment.number)
        self._node = ray.get_runtime_context().get_node_id()
        self._leaving = DrainWatch(self._node)
        self._log = WorkerLog(search, node=self._node)
        self._runner = self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self._runner.close()
        self._runner = self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch, or why there is none.

        Raises:
            ClusterError: The node is about to go, and the trial has not begun here. Ray starts no worker on such a
                node, but Tune would give a warm one the next trial.
        """
        if not self._begun and self._leaving():
            # The driver finds the node by these last words, as in Ray's own messages.
            raise ClusterError(f"no trial begins on a node that is about to go; Node ID: {self._node}")
        self._begun = True
        if not self._first:
            return dict(pack(self._runner.step()))
        self._first = False
        with telling(self._doing, "loading PyTorch and the weights"):
            return dict(pack(self._runner.step()))

    def cleanup(self) -> None:
        """The actor ends."""
        self._leaving.close()
        self._runner.close()

    def _take(self, config: dict[str, Any]) -> Runner:
        self._begun = False
        job = unpack_job(config)
        self._log.about(job.assignment.number)
        own = type(self)
        return Runner(job, own.factory, gauge=own.gauge, node=self._node, leaving=self._leaving, taken=device_taken)


def make_worker(factory: TrialFactory, gauge: Gauge = trial_measures) -> type[TrialWorker]:
    """The worker class for a factory; it travels to the nodes by value, the factory with it."""
    return type("TlsearchTrial", (TrialWorker,), {"factory": staticmethod(factory), "gauge": staticmethod(gauge)})
