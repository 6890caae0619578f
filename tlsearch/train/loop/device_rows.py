"""Rows of the host read on a CUDA device: from a copy of a whole split there, or batch by batch ahead of the reader.

A copy outlives its trial: the next one that reads the same packed images or cached features finds it. What does not fit
is gathered by a thread into pinned memory and sent on a stream of its own, while the steps before it compute.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tlsearch.core.errors import is_out_of_memory
from tlsearch.data import StreamedImages, to_device
from tlsearch.node_cache.store import mapped_entry

Index = Tensor | slice

_FRACTION = 0.4  # of what this process may use: the rest is for the model, its activations and the optimiser
_CHUNK_BYTES = 64 * 2**20  # of one upload: what is pinned at a time
_AHEAD = 2  # batches on their way


def gather(rows: Tensor | StreamedImages, index: Index) -> Tensor:
    """Copies rows out of a tensor that may be memory-mapped; keeps channels_last where it is so.

    ``index_select`` alone would turn channels_last into the default layout.
    """
    if isinstance(rows, StreamedImages):
        return rows[index]
    if rows.dim() == 4 and rows.is_contiguous(memory_format=torch.channels_last):
        return _take(rows.permute(0, 2, 3, 1), index).permute(0, 3, 1, 2)
    return _take(rows, index)


def _take(rows: Tensor, index: Index) -> Tensor:
    return rows[index].clone() if isinstance(index, slice) else rows.index_select(0, index)


@dataclass
class _Copy:
    """A split on a device.

    Attributes:
        reader: The tensor that it was last read for; gone once its trial has ended.
        rows: None where they did not fit: the reader does without, and the next one tries again.
    """

    reader: weakref.ref[Tensor]
    rows: Tensor | None

    @property
    def num_bytes(self) -> int:
        return 0 if self.rows is None else self.rows.numel() * self.rows.element_size()


class DeviceCopies:
    """Splits that lie on one device, the last used at the end; those that a trial reads are not evicted for others."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies: OrderedDict[Hashable, _Copy] = OrderedDict()

    def of(self, rows: Tensor | StreamedImages) -> Tensor | None:
        """The rows on the device, copied there if need be; None where they do not fit."""
        if isinstance(rows, StreamedImages):
            return None
        # By the entry of the node's cache, which the next trial finds mapped at this address or another.
        entry = mapped_entry(rows.data_ptr())
        key = id(rows) if entry is None else (entry, tuple(rows.shape), rows.dtype)  # a part of it begins there too
        found = self._copies.get(key)
        again = found is not None and found.reader() is rows
        if found is None or not again and (found.rows is None or isinstance(key, int)):
            self._copies.pop(key, None)
            self._copies[key] = found = _Copy(reader=weakref.ref(rows), rows=self._upload(rows))
        elif not again:
            found.reader = weakref.ref(rows)
        self._copies.move_to_end(key)
        return found.rows

    def release(self) -> bool:
        """Drops all copies, those in use too: their readers go on without. Whether there were any."""
        held = self.num_bytes > 0
        for key, copy in list(self._copies.items()):
            copy.rows = None
            if copy.reader() is None:
                del self._copies[key]
        return held

    @property
    def num_bytes(self) -> int:
        """What the copies take."""
        return sum(copy.num_bytes for copy in self._copies.values())

    def _upload(self, rows: Tensor) -> Tensor | None:
        needed = rows.numel() * rows.element_size()
        budget = room_for_copies(self._device, self.num_bytes)
        for key, copy in list(self._copies.items()):
            if self.num_bytes + needed <= budget:
                break
            if copy.reader() is None:
                del self._copies[key]
        if self.num_bytes + needed > budget:
            return None
        try:
            result = torch.empty_like(rows, device=self._device)  # channels_last stays so
            block = max(1, _CHUNK_BYTES * len(rows) // max(1, needed))
            for target, source in zip(torch.split(result, block), torch.split(rows, block), strict=True):
                target.copy_(to_device(source, self._device), non_blocking=True)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        return result


def room_for_copies(device: torch.device, held: int) -> int:
    """Bytes that copies may take on a device of which ``held`` bytes are copies already; none but on CUDA."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    cap = total * torch.cuda.get_per_process_memory_fraction(device)
    return copies_budget(
        free=free,
        reserved=torch.cuda.memory_reserved(device),
        used=torch.cuda.memory_allocated(device),
        cap=cap,
        held=held,
    )


def copies_budget(*, free: float, reserved: float, used: float, cap: float, held: float) -> int:
    """The bytes that copies may take, those there included.

    Args:
        free: Of the device, by all its processes.
        reserved: By this process's allocator; ``used`` of it by tensors, the copies included.
        cap: What this process may allocate at most.
        held: What the copies take now.
    """
    reachable = min(cap - used, free + reserved - used) + held
    return max(0, int(_FRACTION * reachable))


class SideStream:
    """Sends batches to a device beside its computation: a stream of its own, and pinned buffers.

    torch's allocator of host memory hands the buffers out again once they are sent. Held by tests/gpu/test_gpu_rows.py.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def send(self, rows: Tensor | StreamedImages, index: Index) -> tuple[Tensor, torch.cuda.Event]:
        """Gathers a batch into pinned memory and queues its copy; called by a thread."""
        host = gather(rows, index).pin_memory()
        with torch.cuda.stream(self._stream):
            batch = host.to(self._device, non_blocking=True)
            return batch, self._stream.record_event()

    def receive(self, sent: tuple[Tensor, torch.cuda.Event]) -> Tensor:
        """The batch, once the current stream has waited for its copy; the host does not wait."""
        batch, copied = sent
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        batch.record_stream(stream)
        return batch


class Ahead:
    """The batches of one split on their way to a device: those that ``expect`` names, or the slices that follow."""

    def __init__(self) -> None:
        self._coming: deque[Index] = deque()
        self._sent: deque[tuple[Index, Future[Any]]] = deque()

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Names the batches that will be read next, in their order, and forgets those named before."""
        self._sent.clear()
        self._coming = deque(batches)

    def take(self, rows: Tensor | StreamedImages, index: Index, sender: SideStream) -> Tensor:
        """One batch on the device; those after it are sent meanwhile."""
        while self._sent and not _same(self._sent[0][0], index):
            self._sent.popleft()
        if not self._sent:
            while self._coming and not _same(self._coming[0], index):
                self._coming.popleft()
            if not self._coming:
                self._coming.extend(_slices_from(index, len(rows)))
            self._send_next(rows, sender)
        _, future = self._sent.popleft()
        while self._coming and len(self._sent) < _AHEAD:
            self._send_next(rows, sender)
        return sender.receive(future.result())

    def _send_next(self, rows: Tensor | StreamedImages, sender: SideStream) -> None:
        index = self._coming.popleft()
        self._sent.append((index, _pool().submit(sender.send, rows, index)))


def _same(one: Index, other: Index) -> bool:
    return one == other if isinstance(one, slice) and isinstance(other, slice) else one is other


def _slices_from(index: Index, num_rows: int) -> list[Index]:
    """The batch, and where it is a slice those that follow it."""
    if not isinstance(index, slice):
        return [index]
    size = index.stop - index.start
    return [slice(start, start + size) for start in range(index.start, max(num_rows, index.start + 1), size)]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="send")


_copies: dict[torch.device, DeviceCopies] = {}


@cache
def _sender(device: torch.device) -> SideStream:
    return SideStream(device)


def rows_on_device(rows: Tensor | StreamedImages, index: Index, device: torch.device, ahead: Ahead) -> Tensor:
    """A batch of rows of the host on a device, new memory: nothing waits for its copy."""
    if device.type != "cuda":
        return to_device(gather(rows, index), device)
    held = _copies.setdefault(device, DeviceCopies(device)).of(rows)  # held by tests/gpu/test_gpu_rows.py
    if held is not None:
        return gather(held, index if isinstance(index, slice) else to_device(index, device))
    return ahead.take(rows, index, _sender(device))


def release_copies() -> bool:
    """Drops all copies of all devices where memory has run out, or at a process's end. Whether there were any."""
    held = [copies.release() for copies in _copies.values()]
    if any(held):
        torch.cuda.empty_cache()
    return any(held)
