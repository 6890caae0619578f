"""What runs beside the start of a search."""

from __future__ import annotations

import pytest

from tlsearch.app.ahead import ray_ahead


def test_a_cluster_is_not_connected_to_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.search.connect.connected", pytest.fail)
    with ray_ahead("10.0.0.1:6379"):
        pass
