"""The background thread: order, retries, the spool, and what it does at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tlsearch.tracking.entries import DropModel, Entry
from tlsearch.tracking.spool import Spool
from tlsearch.tracking.worker import Away, Refused, Worker

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


def _worker(store: Store, folder: Path, *, retry_s: float = 0.01) -> Worker:
    return Worker(store.send, Spool(folder / "spool.jsonl"), first_retry_s=retry_s, last_retry_s=retry_s)


def _entries(*numbers: int) -> list[Entry]:
    return [DropModel(number=number) for number in numbers]


def test_all_is_sent_in_order_and_many_in_one_go(store: Store, tmp_path: Path) -> None:
    worker = _worker(store, tmp_path)
    store.may_answer.clear()
    for number in range(100):
        worker.put(*_entries(number))
    store.may_answer.set()
    assert worker.close(WAIT_S) == 0
    assert store.taken == list(range(100))
    assert store.calls <= 3
    assert not list(tmp_path.iterdir())


def test_the_caller_never_waits_for_the_store(store: Store, tmp_path: Path) -> None:
    worker = _worker(store, tmp_path)
    store.may_answer.clear()
    worker.put(*_entries(*range(50)))
    assert not store.taken  # it has not answered yet
    assert worker.flush(0.05) is False


def test_a_store_that_comes_back_gets_everything_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.away = True
    worker = _worker(store, tmp_path)
    worker.put(*_entries(1, 2))
    assert worker.flush(WAIT_S) is False
    worker.put(*_entries(3))
    deadline = time.monotonic() + WAIT_S
    while len(Spool(tmp_path / "spool.jsonl").load()) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)  # polls the worker's file
    assert Spool(tmp_path / "spool.jsonl").load() == _entries(1, 2, 3)
    store.away = False
    worker.put(*_entries(4))
    assert worker.close(WAIT_S) == 0
    assert store.taken == [1, 2, 3, 4]
    assert not (tmp_path / "spool.jsonl").exists()
    assert sum("goes on" in record.message for record in caplog.records) == 1


def test_close_tells_what_stays_and_the_next_worker_sends_it_first(store: Store, tmp_path: Path) -> None:
    store.away = True
    worker = _worker(store, tmp_path, retry_s=60)
    worker.put(*_entries(1, 2))
    worker.flush(WAIT_S)
    worker.put(*_entries(3))
    assert worker.close(100_000) == 3  # a store that is away is not waited for: the test would never end
    back = Store()
    following = _worker(back, tmp_path)
    following.put(*_entries(4))
    assert following.close(WAIT_S) == 0
    assert back.taken == [1, 2, 3, 4]


def test_a_spool_is_sent_even_if_nothing_new_is_said(store: Store, tmp_path: Path) -> None:
    Spool(tmp_path / "spool.jsonl").append(_entries(1))
    assert _worker(store, tmp_path).close(WAIT_S) == 0
    assert store.taken == [1]


def test_a_hanging_store_leaves_all_on_disk(store: Store, tmp_path: Path) -> None:
    store.may_answer.clear()
    worker = _worker(store, tmp_path)
    worker.put(*_entries(1, 2))
    assert worker.close(0.1) == 2
    assert Spool(tmp_path / "spool.jsonl").load() == _entries(1, 2)


@pytest.mark.parametrize("fault", ["refused", "broken"])
def test_one_bad_entry_costs_itself_alone(store: Store, tmp_path: Path, fault: str) -> None:
    getattr(store, fault).add(2)
    worker = _worker(store, tmp_path)
    worker.put(*_entries(1, 2, 3))
    worker.put(*_entries(4))
    assert worker.close(WAIT_S) == 0
    assert store.taken == [1, 3, 4]


def test_a_closed_worker_takes_nothing(store: Store, tmp_path: Path) -> None:
    worker = _worker(store, tmp_path)
    worker.close(1)
    with pytest.raises(RuntimeError, match="closed"):
        worker.put(*_entries(1))
