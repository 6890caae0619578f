"""Rows on a device: which splits lie there, and what comes batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tlsearch.train.loop import device_rows
from tlsearch.train.loop.device_rows import Ahead, DeviceCopies, copies_budget, gather, rows_on_device

CPU = torch.device("cpu")


def split(level: int, count: int = 10) -> torch.Tensor:
    """A split of 12 bytes an image, channels_last as the packed images are."""
    return torch.full((count, 2, 2, 3), level, dtype=torch.uint8).permute(0, 3, 1, 2)


@pytest.fixture
def room(monkeypatch) -> Callable[[int], None]:
    """Sets the bytes that copies may take; 120 are one split's."""

    def set_room(num_bytes: int) -> None:
        monkeypatch.setattr(device_rows, "room_for_copies", lambda device, held: num_bytes)

    return set_room


@pytest.fixture
def entries(monkeypatch) -> dict[int, Path]:
    """The entries of the node's cache by the address where they are mapped."""
    found: dict[int, Path] = {}
    monkeypatch.setattr(device_rows, "mapped_entry", found.get)
    return found


def test_a_split_is_copied_once_and_found_by_the_next_trial(room, entries):
    room(240)
    copies, first = DeviceCopies(CPU), split(1)
    entries[first.data_ptr()] = Path("a")
    held = copies.of(first)
    assert held is not None and torch.equal(held, first) and held.data_ptr() != first.data_ptr()
    assert held.is_contiguous(memory_format=torch.channels_last)
    assert copies.of(first) is held
    again = split(1)  # mapped a second time, elsewhere
    entries[again.data_ptr()] = Path("a")
    assert copies.of(again) is held and copies.num_bytes == 120
    part = again[:4]  # begins where the whole does
    found = copies.of(part)
    assert found is not None and torch.equal(found, part)


def test_rows_outside_of_the_cache_are_not_taken_for_others_at_their_place(room, entries):
    room(120)
    copies, first = DeviceCopies(CPU), split(1)
    held = copies.of(first)
    assert copies.of(first) is held
    del first
    later = split(2)  # may lie where the first lay, under its id
    found = copies.of(later)
    assert found is not None and torch.equal(found, later)


def test_only_what_no_trial_reads_makes_room_for_others(room, entries):
    room(240)
    copies = DeviceCopies(CPU)
    train, val = split(1), split(2)
    for name, one in (("train", train), ("val", val)):
        entries[one.data_ptr()] = Path(name)
        assert copies.of(one) is not None
    third = split(3)
    assert copies.of(third) is None and copies.num_bytes == 240
    del val, one
    room(360)  # it does not try again in every batch
    assert copies.of(third) is None
    room(240)
    fourth = split(4)
    assert copies.of(fourth) is not None and copies.num_bytes == 240
    assert copies.of(train) is not None


def test_out_of_memory_releases_all_and_readers_go_on_without(room, entries):
    room(240)
    copies, rows = DeviceCopies(CPU), split(1)
    entries[rows.data_ptr()] = Path("a")
    assert copies.of(rows) is not None
    assert copies.release() and copies.num_bytes == 0
    assert copies.of(rows) is None
    assert not copies.release()
    following = split(1)
    entries[following.data_ptr()] = Path("a")
    assert copies.of(following) is not None


def test_an_upload_that_runs_out_of_memory_leaves_no_copy(room, entries, monkeypatch):
    room(240)

    def full(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_rows.torch, "empty_like", full)
    assert DeviceCopies(CPU).of(split(1)) is None


@pytest.mark.parametrize(
    ("free", "reserved", "used", "cap", "held", "budget"),
    [
        (80, 0, 0, 80, 0, 32),  # an empty device: 40 % of it
        (80, 0, 0, 20, 0, 8),  # a quarter of it
        (5, 10, 8, 80, 0, 2),  # neighbours have taken most: what is free and what the allocator keeps unused
        (60, 20, 18, 80, 16, 31),  # the copies that are there count as free
        (0, 10, 10, 10, 0, 0),
        (70, 10, 30, 20, 0, 0),  # over its cap already
    ],
)
def test_the_budget_is_a_fraction_of_what_the_process_may_use(free, reserved, used, cap, held, budget):
    assert copies_budget(free=free, reserved=reserved, used=used, cap=cap, held=held) == budget


def test_copies_take_nothing_without_a_cuda_device():
    assert device_rows.room_for_copies(CPU, 0) == 0


class FakeSender:
    """Sends to the CPU and notes what it was asked for."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []

    def send(self, rows, index):
        batch = gather(rows, index)
        self.sent.append(batch[:, 0].tolist())
        return batch

    def receive(self, sent):
        return sent


def numbered(count: int = 20) -> torch.Tensor:
    return torch.arange(count)[:, None]


def settle() -> None:
    """Waits until the thread has sent what it was given."""
    device_rows._pool().submit(lambda: None).result()


def test_the_batches_that_come_next_are_sent_meanwhile():
    rows, sender, ahead = numbered(), FakeSender(), Ahead()
    batches = list(torch.split(torch.randperm(20), 4))
    ahead.expect(batches)
    for number, index in enumerate(batches):
        assert torch.equal(ahead.take(rows, index, sender)[:, 0], index)
        settle()
        assert len(sender.sent) == min(len(batches), number + 3)
    assert sender.sent == [index.tolist() for index in batches]


def test_slices_are_followed_by_the_next_ones():
    rows, sender, ahead = numbered(10), FakeSender(), Ahead()
    for _ in range(2):  # two evaluations
        parts = [ahead.take(rows, slice(start, start + 4), sender) for start in range(0, 10, 4)]
        assert torch.equal(torch.cat(parts), rows)
    settle()
    assert len(sender.sent) == 6


def test_batches_that_were_not_named_are_right_all_the_same():
    rows, sender, ahead = numbered(), FakeSender(), Ahead()
    ahead.expect(list(torch.split(torch.arange(20), 5)))
    other = torch.tensor([7, 3])
    assert ahead.take(rows, other, sender)[:, 0].tolist() == [7, 3]
    assert ahead.take(rows, slice(18, 20), sender)[:, 0].tolist() == [18, 19]
    assert ahead.take(rows, slice(0, 3), sender)[:, 0].tolist() == [0, 1, 2]


def test_an_error_of_the_thread_is_raised_where_its_batch_is_read():
    class Failing(FakeSender):
        def send(self, rows, index):
            if index == slice(4, 8):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().send(rows, index)

    rows, sender, ahead = numbered(12), Failing(), Ahead()
    ahead.take(rows, slice(0, 4), sender)
    with pytest.raises(torch.OutOfMemoryError):
        ahead.take(rows, slice(4, 8), sender)
    assert len(ahead.take(rows, slice(8, 12), sender)) == 4


def test_other_devices_get_their_batch_without_a_copy_of_the_split():
    index = torch.tensor([3, 1])
    assert torch.equal(rows_on_device(split(1), index, CPU, Ahead()), split(1)[index])
    assert rows_on_device(split(1), index, torch.device("meta"), Ahead()).device.type == "meta"


def test_a_mapped_entry_is_found_by_its_address(tmp_path):
    import numpy as np

    from tlsearch.node_cache.store import Content, Store, mapped_entry

    store = Store(folder=tmp_path, max_open=1)
    content = Content(shape=(2, 3), dtype=np.dtype(np.uint8), rows=[np.ones((2, 3), np.uint8)])
    array, _ = store.open({"of": "images"}, lambda: content)
    rows = torch.from_numpy(array)
    found = mapped_entry(rows.data_ptr())
    assert found is not None and found.parent == tmp_path
    other, _ = store.open({"of": "others"}, lambda: content)
    assert mapped_entry(rows.data_ptr()) is None  # no longer kept between uses
    assert mapped_entry(torch.from_numpy(other).data_ptr()) != found
