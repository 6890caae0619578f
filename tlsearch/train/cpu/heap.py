"""The C library's heap in a process that trains on a CPU.

glibc maps every large block again and unmaps it when it is freed; each step of training so faults in hundreds of
megabytes of activations page by page, which the system zeroes first (what that costs: docs/benchmarks.md). Here
blocks come from the heap, and the heap is kept until the trial ends (mallopt(3), malloc_trim(3); torch's CPU tensors
are malloc's).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_TOP_PAD_BYTES = 64 << 20


@cache
def keep_heap() -> bool:
    """Has freed blocks stay in the process, from now on.

    Returns:
        False where nothing was changed: without glibc, or where the user has set malloc's variables.
    """
    library = _glibc()
    if library is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(library.mallopt(name, value) == 1 for name, value in settings)


def trim_heap() -> None:
    """Gives what is free back to the system."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "malloc_trim") else None
