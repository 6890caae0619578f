"""Memory of a training process: blocks taken again cost no page faults, and a trial's end frees them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")

# Each of the counts is of taking and freeing 64 MiB twenty times.
_COUNTING = """
import resource, torch
from tlsearch.train.cpu.heap import keep_heap
from tlsearch.train import open_runtime, release_memory

def faults():
    torch.ones(16 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("RssAnon"))  # MiB
"""
PAGES = (64 << 20) // os.sysconf("SC_PAGE_SIZE")


def told(script: str, **environment: str) -> list[int]:
    """The numbers that a fresh process prints."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")} | environment
    command = [sys.executable, "-c", _COUNTING + script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
    return [int(word) for word in done.stdout.split()]


def test_a_trial_on_a_cpu_takes_its_memory_once_and_gives_it_back() -> None:
    script = """
open_runtime("cpu")  # as who predicts does
print(faults(), held())
runtime = open_runtime("cpu", num_threads=1)
print(faults(), held())
release_memory(runtime)
print(held())
"""
    others, before, faults, kept, left = told(script)
    assert others > 10 * PAGES
    assert faults <= 2 * PAGES  # where a small block has split the first one, once more
    assert kept - before >= 60
    assert kept - left >= 60


@pytest.mark.slow
def test_who_has_set_malloc_keeps_it() -> None:
    (faults,) = told(
        "open_runtime('cpu', num_threads=1); assert not keep_heap(); print(faults())", MALLOC_ARENA_MAX="2"
    )
    assert faults > 10 * PAGES
