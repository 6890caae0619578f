"""Fixtures of all unit tests: none of them starts a Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tlsearch.core.errors import ClusterError


@pytest.fixture(autouse=True)
def _no_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A start of Ray is an error, also where a command begins it ahead of its search and nobody looks at it."""
    if request.node.get_closest_marker("ray"):
        yield
        return
    started = []

    def start(num_cpus: int | None) -> None:
        started.append(num_cpus)
        raise ClusterError("a unit test starts no Ray")

    monkeypatch.setattr("tlsearch.search.cluster.connect._start_own", start)
    yield
    assert not started, "a unit test starts no Ray: replace tlsearch.search.starting_ray, or mark the test ray"
