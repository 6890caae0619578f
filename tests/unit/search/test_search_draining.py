"""A worker learns of its node's drain warning in the background, and a death on such a node is no failure."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from ray.exceptions import RaySystemError
from search_doubles import make_plan

from tlsearch.search.controller.controller import Controller
from tlsearch.search.ray_tune import resources
from tlsearch.search.ray_tune.trainable import DrainWatch
from tlsearch.search.study.storage import open_for_writing, study_attrs

WAIT_S = 20.0


class Cluster:
    """Answers as the test says; each question is a step of ``asked``."""

    def __init__(self) -> None:
        self.draining: set[str] = set()
        self.broken = False
        self.asked = threading.Semaphore(0)

    def __call__(self) -> Collection[str]:
        try:
            if self.broken:
                raise RaySystemError("the head does not answer")
            return set(self.draining)
        finally:
            self.asked.release()

    def wait(self, times: int) -> None:
        for _ in range(times):
            assert self.asked.acquire(timeout=WAIT_S)


def test_only_a_warning_for_its_own_node_counts() -> None:
    cluster = Cluster()
    watch = DrainWatch("mine", ask=cluster, every_s=0.0)
    cluster.wait(2)
    cluster.draining = {"another"}
    cluster.wait(2)
    assert not watch()
    cluster.draining = {"another", "mine"}
    watch._thread.join(WAIT_S)
    assert watch() and not watch._thread.is_alive()


def test_a_head_that_is_away_is_asked_again() -> None:
    cluster = Cluster()
    cluster.broken = True
    watch = DrainWatch("mine", ask=cluster, every_s=0.0)
    cluster.wait(2)
    assert not watch()
    cluster.draining, cluster.broken = {"mine"}, False
    watch._thread.join(WAIT_S)
    assert watch()


def test_a_closed_watch_asks_no_more() -> None:
    cluster = Cluster()
    watch = DrainWatch("mine", ask=cluster, every_s=3600.0)
    cluster.wait(1)
    watch.close()
    watch._thread.join(WAIT_S)
    assert not watch._thread.is_alive() and not watch()


def test_a_death_on_a_node_that_is_about_to_go_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"NodeID": "stays", "Alive": True},
        {"NodeID": "drains", "Alive": True},
        {"NodeID": "lost", "Alive": False},
    ]
    monkeypatch.setattr(resources.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(resources, "draining_nodes", lambda: {"drains"})
    assert resources.lasting_node_ids() == {"stays"}
    plan = make_plan(tmp_path / "s", trials=1, max_failures=0)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    controller = Controller(plan, study)
    assert controller.next_trial() is not None
    for node, again in (("drains", True), ("lost", True), ("stays", False)):
        assert controller.worker_died(0, node=node, message="gone", alive=resources.lasting_node_ids) is again
    study.close()
