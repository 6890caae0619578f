"""Whether this worker's node is about to go, asked for in the background so that no epoch waits for an answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection

from ray.exceptions import RayError

from tlsearch.search.ray_tune.resources import draining_node_ids

logger = logging.getLogger(__name__)

_EVERY_S = 5.0  # a warning comes 30 s or more before the end; 1,000 workers ask Ray 200 times a second


class DrainWatch:
    """Called, it tells whether the node has a drain warning; a warning is never taken back."""

    def __init__(
        self, node: str, *, ask: Callable[[], Collection[str]] = draining_node_ids, every_s: float = _EVERY_S
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
