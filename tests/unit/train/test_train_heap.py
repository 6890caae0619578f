"""Memory of a training process: blocks taken again cost no page faults, and a trial's end frees them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")

# Faults of taking and freeing 64 MiB twenty times, in blocks of that size; then what the process holds before and
# after the heap is trimmed, in MiB.
_SCRIPT = """
import resource, torch
from tlsearch.train.heap import keep_heap, trim_heap
from tlsearch.train import open_runtime, release_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon"))

{setup}
torch.ones(16 << 20)
before = faults()
for _ in range(20):
    torch.ones(16 << 20)
counted, kept = faults() - before, held()
{end}
print(counted, kept, held())
"""
PAGES = (64 << 20) // os.sysconf("SC_PAGE_SIZE")


def measured(setup: str, end: str = "", **environment: str) -> list[int]:
    script = _SCRIPT.format(setup=setup, end=end)
    own = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")} | environment
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=own)
    return [int(word) for word in done.stdout.split()]


def test_a_trial_on_a_cpu_takes_its_memory_once() -> None:
    faults, kept, left = measured("runtime = open_runtime('cpu', num_threads=1)", "release_memory(runtime)")
    assert faults <= 2 * PAGES  # where a small block has split the first one, once more
    assert kept - left >= 60


def test_without_it_every_block_is_faulted_in_anew() -> None:
    faults, kept, left = measured("open_runtime('cpu')  # as who predicts does")
    assert faults > 10 * PAGES
    assert abs(kept - left) < 10


def test_who_has_set_malloc_keeps_it() -> None:
    faults, *_ = measured("assert not keep_heap()", "trim_heap()", MALLOC_ARENA_MAX="2")
    assert faults > 10 * PAGES
