"""The background thread: order, retries, and what it does at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from tlsearch.tracking.mlflow_database import Away, Refused
from tlsearch.tracking.sink import worker as worker_module
from tlsearch.tracking.sink.entries import DropModel, Entry
from tlsearch.tracking.sink.worker import Worker

WAIT_S = 240  # for another thread, on a machine that has no time


class Store:
    """A store that can be away, refuse one number, or hang."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.calls = 0
        self.away = False
        self.refused: set[int] = set()
        self.broken: set[int] = set()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def send(self, entries: Sequence[Entry]) -> None:
        self.calls += 1
        self.may_answer.wait(WAIT_S)
        if self.away:
            raise Away("the store is away")
        numbers = [entry.number for entry in entries if isinstance(entry, DropModel)]
        if self.refused & set(numbers):
            raise Refused("never")
        if self.broken & set(numbers):
            raise KeyError("a bug")
        self.taken += numbers


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.may_answer.set()


def _worker(store: Store, *, retry_s: float = 0.01) -> Worker:
    worker = Worker(store.send, first_retry_s=retry_s, last_retry_s=retry_s)
    worker.start()
    return worker


def _entries(*numbers: int) -> list[Entry]:
    return [DropModel(number=number) for number in numbers]


def test_all_is_sent_in_order_and_many_in_one_go(store: Store) -> None:
    worker = _worker(store)
    store.may_answer.clear()
    for number in range(100):
        worker.put(*_entries(number))
    store.may_answer.set()
    assert worker.close(WAIT_S) == 0
    assert store.taken == list(range(100))
    assert store.calls <= 3


def test_the_first_entries_go_before_those_that_wait(store: Store) -> None:
    worker = Worker(store.send, first_retry_s=0.01, last_retry_s=0.01)
    worker.put(*_entries(2, 3))
    assert worker.flush(0) is False and store.calls == 0
    worker.start(*_entries(0, 1))
    worker.put(*_entries(4))
    assert worker.close(WAIT_S) == 0
    assert store.taken == [0, 1, 2, 3, 4]


def test_what_was_put_before_a_start_is_sent_at_the_end(store: Store) -> None:
    worker = Worker(store.send, first_retry_s=0.01, last_retry_s=0.01)
    worker.put(*_entries(1))
    assert worker.close(WAIT_S) == 0
    assert store.taken == [1]


def test_the_caller_never_waits_for_the_store(store: Store) -> None:
    worker = _worker(store)
    store.may_answer.clear()
    worker.put(*_entries(*range(50)))
    assert not store.taken  # it has not answered yet
    assert worker.flush(0.05) is False


def test_a_store_that_comes_back_gets_everything_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.away = True
    worker = _worker(store)
    worker.put(*_entries(1, 2))
    assert worker.flush(WAIT_S) is False
    worker.put(*_entries(3))
    store.away = False
    worker.put(*_entries(4))
    assert worker.close(WAIT_S) == 0
    assert store.taken == [1, 2, 3, 4]
    assert sum("goes on" in record.message for record in caplog.records) == 1


def test_close_does_not_wait_for_a_store_that_is_away(store: Store) -> None:
    store.away = True
    worker = _worker(store, retry_s=60)
    worker.put(*_entries(1, 2))
    worker.flush(WAIT_S)
    worker.put(*_entries(3))
    assert worker.close(100_000) == 3  # a store that is away is not waited for: the test would never end


def test_close_does_not_wait_for_a_store_that_hangs(store: Store) -> None:
    store.may_answer.clear()
    worker = _worker(store)
    worker.put(*_entries(1, 2))
    assert worker.close(0.1) == 2


@pytest.mark.parametrize("problem", ["refused", "broken"])
def test_one_bad_entry_costs_itself_alone(store: Store, problem: str) -> None:
    getattr(store, problem).add(2)
    worker = _worker(store)
    worker.put(*_entries(1, 2, 3))
    worker.put(*_entries(4))
    assert worker.close(WAIT_S) == 0
    assert store.taken == [1, 3, 4]


def test_a_closed_worker_takes_nothing(store: Store) -> None:
    worker = _worker(store)
    worker.close(1)
    with pytest.raises(RuntimeError, match="closed"):
        worker.put(*_entries(1))


def test_what_comes_soon_after_each_other_is_sent_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each put wakes the thread; only a flush, a full unit or the end do not wait for more."""
    monkeypatch.setattr(worker_module, "_GATHER_S", float(WAIT_S))
    worker = _worker(store)
    for number in range(20):
        worker.put(*_entries(number))
    assert worker.flush(WAIT_S) and store.taken == list(range(20)) and store.calls == 1
    for number in range(20, 400):
        worker.put(*_entries(number))
    assert worker.close(WAIT_S) == 0
    assert store.taken == list(range(400)) and store.calls <= 4
