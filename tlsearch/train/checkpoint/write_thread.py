"""Checkpoints beside the training: copied at once, written by a thread, one after the other.

A step of training may change a tensor while a thread writes it, so the thread works on a copy in the host's memory.
Before a caller promises that a checkpoint is on disk, it calls ``join``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Tensors = Callable[[], Mapping[str, Tensor]]


class Writer:
    """Runs one write at a time in a thread; an error of a write is raised by the next call."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Joins the write before, then begins this one.

        Raises:
            Exception: What the write before has raised.
        """
        self.join()
        self._thread = threading.Thread(target=self._run, args=(write,), name="checkpoint")
        self._thread.start()

    def join(self) -> None:
        """Returns once all that was submitted is on disk.

        Raises:
            Exception: What the write has raised; once.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error


def copy_to_host(tensors: Mapping[str, Tensor]) -> Tensors:
    """Copies tensors as they are now, in the order of the device's work, without waiting for it.

    Returns:
        To be called once, by the thread that writes: waits for the copies, and gives them.
    """
    copies: dict[str, Tensor] = {}
    on_gpu = False
    for name, tensor in tensors.items():
        plain = tensor.detach()
        if plain.is_cuda:  # held by tests/unit/train/test_train_graphs.py
            on_gpu = True
            pinned = torch.empty_like(plain, device="cpu", pin_memory=True)
            copies[name] = pinned.copy_(plain, non_blocking=True)
        else:
            copies[name] = plain.clone()
    if not on_gpu:
        return lambda: copies
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()

    def arrived() -> Mapping[str, Tensor]:
        event.synchronize()
        return copies

    return arrived
