"""The node's rates: measured once, the same for all processes, never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tlsearch.features import Rates, forget_rates, node_rates, rates
from tlsearch.types import CacheSpec

CPU = torch.device("cpu")
CACHE = CacheSpec()
FOUND = Rates(macs_per_s=2.0**33, bytes_per_s=2.0**30)


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    forget_rates()
    yield
    forget_rates()


class Measure:
    """Stands in for a measurement, and counts them."""

    def __init__(self, found: Rates = FOUND) -> None:
        self.found = found
        self.times = 0

    def __call__(self, *_: object) -> Rates:
        self.times += 1
        return self.found


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    stand_in = Measure()
    monkeypatch.setattr(rates, "measure", stand_in)
    return stand_in


def file_of(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache" / "rates").glob("*.json")
    return path


def test_a_real_measurement_gives_powers_of_two_and_leaves_nothing_but_its_file(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    found = node_rates(CPU, "fp32", CACHE)
    assert 2**24 < found.macs_per_s < 2**50 and 2**20 < found.bytes_per_s < 2**45
    for value in (found.macs_per_s, found.bytes_per_s):
        assert value == 2.0 ** (int(value).bit_length() - 1)
    assert torch.equal(torch.get_rng_state(), state)
    written = json.loads(file_of(tmp_path).read_text())
    assert (written["macs_per_s"], written["bytes_per_s"]) == (found.macs_per_s, found.bytes_per_s)
    assert {path.suffix for path in file_of(tmp_path).parent.iterdir()} <= {".json", ".lock"}


def test_it_is_measured_once_for_each_device_precision_and_number_of_threads(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert node_rates(CPU, "fp32", CACHE) == FOUND
        forget_rates()  # as another process, or a later search, would see it
    assert measure.times == 1
    node_rates(CPU, "bf16", CACHE)
    assert measure.times == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    node_rates(CPU, "fp32", CACHE)
    assert measure.times == 3
    monkeypatch.setattr(rates.platform, "node", lambda: "another")
    node_rates(CPU, "fp32", CACHE)
    assert measure.times == 4


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[1, 2]",
        '{"macs_per_s": 8589934592.0}',
        '{"macs_per_s": "fast", "bytes_per_s": 1073741824.0}',
        '{"macs_per_s": 0, "bytes_per_s": 1073741824.0}',
        '{"macs_per_s": 3.0, "bytes_per_s": 1073741824.0}',
        '{"macs_per_s": Infinity, "bytes_per_s": 1073741824.0}',
        '{"macs_per_s": NaN, "bytes_per_s": 1073741824.0}',
        '{"macs_per_s": -8.0, "bytes_per_s": 1073741824.0}',
    ],
)
def test_a_damaged_file_is_measured_anew(tmp_path: Path, measure: Measure, damage: str) -> None:
    node_rates(CPU, "fp32", CACHE)
    file_of(tmp_path).write_text(damage)
    forget_rates()
    assert node_rates(CPU, "fp32", CACHE) == FOUND
    assert measure.times == 2
    forget_rates()
    assert node_rates(CPU, "fp32", CACHE) == FOUND
    assert measure.times == 2, "it is sound again"


def test_a_file_that_is_no_text_is_measured_anew(tmp_path: Path, measure: Measure) -> None:
    node_rates(CPU, "fp32", CACHE)
    file_of(tmp_path).write_bytes(b"\xff\xfe\x00")
    forget_rates()
    assert node_rates(CPU, "fp32", CACHE) == FOUND and measure.times == 2


def test_where_nothing_can_be_kept_common_rates_are_taken(
    tmp_path: Path, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "rates").write_text("a file where the folder should be")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    found = node_rates(CPU, "fp32", CACHE)
    assert found == Rates(macs_per_s=2.0**36, bytes_per_s=2.0**31)
    assert measure.times == 0


def test_a_full_disk_is_met_with_common_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Rates:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rates, "measure", full)
    assert node_rates(CPU, "fp32", CACHE).bytes_per_s == 2.0**31
    assert not list((tmp_path / "cache" / "rates").glob("*.json"))


def test_threads_wait_for_one_measurement(measure: Measure) -> None:
    begun = threading.Barrier(4, timeout=240)
    found: list[Rates] = []

    def ask() -> None:
        begun.wait()
        found.append(node_rates(CPU, "fp32", CACHE))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    assert found == [FOUND] * 4 and measure.times == 1


_PROCESS = """
import sys, torch
from tlsearch.features import Rates, node_rates, rates
from tlsearch.types import CacheSpec

def measure(*_):
    print("measuring", flush=True)
    sys.stdin.readline()
    return Rates(macs_per_s=2.0 ** float(sys.argv[1]), bytes_per_s=2.0**30)

rates.measure = measure
torch.set_num_threads(1)
print("ready", flush=True)
sys.stdin.readline()
print(node_rates(torch.device("cpu"), "fp32", CacheSpec()).macs_per_s, flush=True)
"""


def test_two_processes_measure_once() -> None:
    """The second begins while the first one is measuring; both go by what the first one found."""
    start: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": {**os.environ}}
    first, second = (subprocess.Popen([sys.executable, "-c", _PROCESS, power], **start) for power in ("33", "40"))

    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def go_on(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    try:
        assert (line(first), line(second)) == ("ready", "ready")
        go_on(first)
        assert line(first) == "measuring"
        go_on(second)
        go_on(first)
        assert line(first) == line(second) == str(2.0**33)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
