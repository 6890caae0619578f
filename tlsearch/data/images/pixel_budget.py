"""Threads that decode images, and one budget of pixels for all of a process: memory goes by pixels, not by files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

from PIL import Image

from tlsearch.core.types import MAX_PIXELS

_Result = TypeVar("_Result")
_CHUNK = 32  # keys that a thread takes at a time
_PIXELS_OF_A_THREAD = 16_000_000  # a large photo: photos of this size are decoded on all processors at once


def num_decoders() -> int:
    """Threads to decode with: Pillow lets the others run while it works."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def for_each(keys: Sequence[str], look: Callable[[str], _Result]) -> Iterator[_Result]:
    """What a function that opens images gives for each key, in their order; called by several threads."""
    Image.init()  # loads Pillow's plugins here, instead of in several threads at once
    chunks = [keys[start : start + _CHUNK] for start in range(0, len(keys), _CHUNK)]
    with ThreadPoolExecutor(max_workers=num_decoders()) as pool:
        for results in pool.map(lambda chunk: [look(key) for key in chunk], chunks):
            yield from results


class PixelBudget:
    """Lets threads work on this number of pixels at a time, first come, first served.

    An image of more pixels than the whole budget waits until it is alone. A pixel takes about 12 bytes at worst: as its
    file has it, as RGB, and while it is turned upright.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = self._free = pixels
        self._changed = Condition()
        self._waiting: deque[object] = deque()

    def limit(self, pixels: int) -> None:
        """Makes the budget smaller, for a process that must stay small."""
        with self._changed:
            pixels = min(pixels, self._pixels)
            self._free += pixels - self._pixels
            self._pixels = pixels

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Holds a part of the budget within the block; a thread takes one at a time."""
        part, own = min(pixels, self._pixels), object()
        with self._changed:
            self._waiting.append(own)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is own and self._free >= part)
            finally:
                self._waiting.remove(own)
                self._changed.notify_all()
            self._free -= part
        try:
            yield
        finally:
            with self._changed:
                self._free += part
                self._changed.notify_all()


def usual_pixels() -> int:
    """The budget of a process: a large photo for each processor, and at least one image of the most pixels."""
    return max(MAX_PIXELS, _PIXELS_OF_A_THREAD * num_decoders())


BUDGET = PixelBudget(usual_pixels())
