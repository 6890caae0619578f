"""What runs beside the start of a search."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlsearch.app import run
from tlsearch.app.ahead import ray_ahead
from tlsearch.errors import TrackingError


def test_a_cluster_is_not_connected_to_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.search.connect.connected", pytest.fail)
    with ray_ahead("10.0.0.1:6379"):
        pass


def test_a_store_that_cannot_be_opened_stops_the_search_and_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise TrackingError("no such store")

    monkeypatch.setattr(run, "keep_evidence", refused)
    stopped = threading.Event()
    with (
        pytest.raises(TrackingError, match="no such store"),
        run._opening(cast(Any, SimpleNamespace(entry=0, index=0)), cast(Any, None), failed=stopped.set),
    ):
        assert stopped.wait(60)
