"""Ray is started beside the checks: taken over once, and ended where nobody takes it over."""

from __future__ import annotations

import threading

import pytest

from tlsearch.core.errors import ClusterError
from tlsearch.search.cluster.local_ray import begun_ahead, take_begun


def test_what_was_begun_is_taken_over_once_and_not_ended() -> None:
    ended: list[str] = []
    with begun_ahead(threading.get_ident, lambda _: ended.append("ended")):
        assert take_begun() not in (None, threading.get_ident())
        assert take_begun() is None
    assert not ended


def test_what_nobody_takes_over_is_ended_also_after_an_error() -> None:
    ended: list[str] = []
    with pytest.raises(KeyError), begun_ahead(lambda: "started", ended.append):
        raise KeyError
    assert ended == ["started"]
    assert take_begun() is None


def test_an_error_is_raised_where_it_is_taken_over_and_nowhere_else() -> None:
    def failing() -> None:
        raise ClusterError("a local Ray could not be started")

    with begun_ahead(failing, pytest.fail):
        pass
    with begun_ahead(failing, pytest.fail), pytest.raises(ClusterError, match="could not be started"):
        take_begun()
    assert take_begun() is None
