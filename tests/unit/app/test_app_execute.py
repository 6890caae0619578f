"""A search and its records: MLflow is opened beside the first trials."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlsearch.app.searches import execute
from tlsearch.core.errors import TrackingError


def test_a_store_that_cannot_be_opened_stops_the_search_and_is_raised_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise TrackingError("no such store")

    monkeypatch.setattr(execute, "keep_evidence", refused)
    stopped = threading.Event()
    with (
        pytest.raises(TrackingError, match="no such store"),
        execute._opening(cast(Any, SimpleNamespace(entry=0, index=0)), cast(Any, None), failed=stopped.set),
    ):
        assert stopped.wait(60)
