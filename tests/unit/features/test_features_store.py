"""The feature store: computed once, never wrong, never in the way."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from feature_keys import KEY
from torch import Tensor

from tlsearch.core.types import CacheSpec, TransformSpec
from tlsearch.features import (
    FeatureKey,
    Features,
    NotStored,
    feature_cache,
    open_features,
    open_solution,
    tensor_digests,
)
from tlsearch.node_cache.store import close

CACHE = CacheSpec()
ROWS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


class Passes:
    """A pass over ROWS in batches of four, counted."""

    def __init__(self, rows: Tensor = ROWS, slow_s: float = 0.0) -> None:
        self.rows = rows
        self.slow_s = slow_s
        self.num_done = 0

    def __call__(self) -> Iterator[Tensor]:
        for batch in self.rows.split(4):  # type: ignore[no-untyped-call]
            time.sleep(self.slow_s)
            yield batch
        self.num_done += 1


def opened(passes: Passes, key: FeatureKey = KEY, cache: CacheSpec = CACHE) -> Features:
    found = open_features(key, num_rows=len(passes.rows), compute=passes, cache=cache)
    assert isinstance(found, Features), found
    assert torch.equal(found.rows, passes.rows)
    return found


def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "features"


def data_file(tmp_path: Path, key: FeatureKey = KEY) -> Path:
    return Path(f"{feature_cache._store(CACHE)._path(key.as_dict())}.bin")


def test_an_entry_is_computed_once(tmp_path: Path) -> None:
    passes = Passes()
    assert opened(passes).built
    assert not opened(passes).built
    close()  # as another process would see it
    assert not opened(passes).built
    assert passes.num_done == 1
    sidecar = json.loads(data_file(tmp_path).with_suffix(".json").read_text())
    assert (sidecar["shape"], sidecar["dtype"], sidecar["key"]["batch_size"]) == ([10, 4], "float32", 64)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "other"},
        {"weights_digest": "x"},
        {"state_digest": "x"},
        {"depth": 1},
        {"transform": TransformSpec(resize_size=40, crop_size=32, interpolation="bicubic")},
        {"data_digest": "x"},
        {"split": "val"},
        {"compute": "cuda/bf16"},
        {"precision": "half"},
        {"libraries": "torch 9"},
        {"augmentation": "light"},
        {"view": 1},
    ],
)
def test_every_part_of_the_key_makes_another_entry(change: dict[str, Any]) -> None:
    opened(Passes())
    assert open_features(replace(KEY, **change), num_rows=10, compute=(other := Passes()), cache=CACHE)
    assert other.num_done == 1


def test_maps_come_back_in_channels_last() -> None:
    maps = torch.randn(6, 3, 2, 5).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        assert opened(Passes(maps)).rows.is_contiguous(memory_format=torch.channels_last)
        close()


def test_working_in_place_on_mapped_rows_changes_nothing_that_others_read() -> None:
    opened(Passes()).rows.zero_()
    close()
    opened(Passes())


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "remove data", "remove sidecar", "garble sidecar", "other rows"]
)
def test_a_damaged_entry_is_computed_anew(tmp_path: Path, damage: str) -> None:
    opened(Passes())
    close()
    path = data_file(tmp_path)
    sidecar = path.with_suffix(".json")
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-7])
    elif damage == "flip":
        content[13] ^= 1
        path.write_bytes(content)
    elif damage == "remove data":
        path.unlink()
    elif damage == "remove sidecar":
        sidecar.unlink()
    elif damage == "garble sidecar":
        sidecar.write_text('{"shape": [10')
    else:
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"shape": [5, 8]}))
    passes = Passes()
    assert opened(passes).built
    assert passes.num_done == 1


def test_racing_writers_compute_once() -> None:
    passes = Passes(slow_s=0.05)
    found: list[Features] = []
    threads = [threading.Thread(target=lambda: found.append(opened(passes))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=240)
    assert passes.num_done == 1
    assert sorted(features.built for features in found) == [False, False, False, True]


_KILLED_WRITER = """
import os, sys, torch
from tests_key import KEY
from tlsearch.features import open_features
from tlsearch.core.types import CacheSpec

def compute():
    yield torch.zeros(4, 4)
    print("half done", flush=True)
    sys.stdin.read()

open_features(KEY, num_rows=10, compute=compute, cache=CacheSpec())
"""


@pytest.mark.slow
def test_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "tests_key.py").write_text(
        f"from tlsearch.features import FeatureKey\nfrom tlsearch.core.types import TransformSpec\nKEY = {KEY!r}\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", _KILLED_WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert writer.stdout is not None and writer.stdin is not None
    assert writer.stdout.readline() == b"half done\n"
    writer.kill()
    writer.wait()
    writer.stdin.close()
    writer.stdout.close()
    assert [path.suffix for path in folder(tmp_path).iterdir() if path.suffix != ".lock"] == [".tmp"]
    assert opened(Passes()).built
    assert not list(folder(tmp_path).glob("*.tmp"))


def test_what_is_larger_than_the_budget_is_not_stored(tmp_path: Path) -> None:
    opened(Passes())
    found = open_features(replace(KEY, split="val"), num_rows=10, compute=Passes(), cache=CacheSpec(features_gb=100e-9))
    assert isinstance(found, NotStored)
    assert "may hold 1e-07 GB" in found.reason
    assert len(list(folder(tmp_path).glob("*.bin"))) == 1  # nothing was evicted for it, nothing left of it


def test_entries_that_are_read_in_turn_are_stored_all_or_none(tmp_path: Path) -> None:
    cache = CacheSpec(features_gb=330e-9)  # two entries of 160 bytes
    found = open_features(KEY, num_rows=10, compute=Passes(), cache=cache, num_alike=3)
    assert isinstance(found, NotStored)
    assert found.reason == "the features need 4.8e-07 GB; the feature store may hold 3.3e-07 GB"
    assert not list(folder(tmp_path).glob("*.bin"))
    assert isinstance(open_features(KEY, num_rows=10, compute=Passes(), cache=cache, num_alike=2), Features)


def test_the_least_recently_used_entry_goes_first(tmp_path: Path) -> None:
    keys = [replace(KEY, split=name) for name in ("a", "b", "c")]
    cache = CacheSpec(features_gb=330e-9)  # two entries of 160 bytes
    opened(Passes(), keys[0], cache)
    opened(Passes(), keys[1], cache)
    for age, key in ((200, keys[0]), (300, keys[1])):
        stamp = time.time() - age
        os.utime(data_file(tmp_path, key).with_suffix(".json"), (stamp, stamp))
    opened(Passes(), keys[0], cache)  # used again: now b is the oldest
    opened(Passes(), keys[2], cache)
    assert [data_file(tmp_path, key).exists() for key in keys] == [True, False, True]
    opened(Passes(), keys[1], cache)
    assert not data_file(tmp_path, keys[0]).exists()
    used = [opened(Passes(), key, cache) for key in keys[1:]]
    found = open_features(keys[0], num_rows=10, compute=Passes(), cache=cache)
    assert isinstance(found, NotStored)  # what is in use stays
    del used
    assert opened(Passes(), keys[0], cache).built


def test_an_abandoned_draft_counts_for_nothing(tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / ".dead.abc.tmp").write_bytes(bytes(300))
    opened(Passes(), cache=CacheSpec(features_gb=330e-9))
    assert not (folder(tmp_path) / ".dead.abc.tmp").exists()


def _full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("patched", [(os, "replace"), (os, "fsync")])
def test_a_full_disk_is_a_reason_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patched: tuple[Any, str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*patched, _full_disk)
        found = open_features(KEY, num_rows=10, compute=Passes(), cache=CACHE)
    assert isinstance(found, NotStored)
    assert "No space left on device" in found.reason
    assert [path for path in folder(tmp_path).iterdir() if path.suffix != ".lock"] == []


def test_an_entry_that_is_gone_as_soon_as_it_is_written_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.node_cache.store.map_array", lambda *_: None)
    found = open_features(KEY, num_rows=10, compute=Passes(), cache=CACHE)
    assert isinstance(found, NotStored)
    assert "was damaged or removed right after it was written" in found.reason


def test_a_folder_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    folder(tmp_path).write_text("a file where the folder should be")
    found = open_features(KEY, num_rows=10, compute=Passes(), cache=CACHE)
    assert isinstance(found, NotStored) and found.reason.startswith("the feature store cannot be written: ")


def test_a_writer_that_hangs_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "_LOCK_TIMEOUT_S", 0.1)
    holding, release = threading.Event(), threading.Event()

    def hang() -> Iterator[Tensor]:
        holding.set()
        release.wait(timeout=240)
        yield ROWS

    writer = threading.Thread(target=lambda: open_features(KEY, num_rows=10, compute=hang, cache=CACHE))
    writer.start()
    assert holding.wait(timeout=240)
    found = open_features(KEY, num_rows=10, compute=Passes(), cache=CACHE)
    release.set()
    writer.join()
    assert isinstance(found, NotStored) and "another process" in found.reason


def test_a_process_that_waits_for_a_solution_does_other_work_meanwhile() -> None:
    solving, release = threading.Event(), threading.Event()
    meanwhile: list[str] = []

    def solved() -> dict[str, Tensor]:
        solving.set()
        assert release.wait(timeout=240)
        return {"weight": ROWS}

    def opened_solution(name: str) -> dict[str, Tensor]:
        def other() -> None:
            meanwhile.append(name)
            release.set()

        return open_solution("probe", KEY, compute=solved, cache=CACHE, meanwhile=other)

    first = threading.Thread(target=opened_solution, args=("first",))
    first.start()
    assert solving.wait(timeout=240)
    assert torch.equal(opened_solution("second")["weight"], ROWS)
    first.join()
    assert torch.equal(opened_solution("third")["weight"], ROWS)
    assert meanwhile == ["second"]


def test_half_precision_only_where_it_holds_the_values() -> None:
    half = replace(KEY, precision="half")
    found = open_features(half, num_rows=10, compute=Passes(), cache=CACHE)
    assert isinstance(found, Features) and found.rows.dtype == torch.float16
    large = ROWS.clone()
    large[8, 1] = 70000.0
    opened(Passes(large), replace(half, split="val"))  # float32: equal to the bit


def test_a_pass_in_bfloat16_is_stored_in_as_many_bits(tmp_path: Path) -> None:
    maps = torch.randn(6, 3, 2, 5).bfloat16().contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        found = opened(Passes(maps))
        assert found.rows.dtype == torch.bfloat16 and found.rows.is_contiguous(memory_format=torch.channels_last)
        close()
    assert data_file(tmp_path).stat().st_size == 2 * maps.numel()
    half = open_features(replace(KEY, precision="half"), num_rows=6, compute=Passes(maps), cache=CACHE)
    assert isinstance(half, Features) and half.rows.dtype == torch.float16


def test_an_error_of_the_pass_goes_through_and_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Tensor]:
        yield ROWS[:4]
        raise ValueError("a corrupt image")

    with pytest.raises(ValueError, match="corrupt"):
        open_features(KEY, num_rows=10, compute=broken, cache=CACHE)
    assert [path for path in folder(tmp_path).iterdir() if path.suffix != ".lock"] == []
    assert opened(Passes()).built


def test_digests_tell_every_bit() -> None:
    base = {"a": torch.zeros(2, 3), "n": torch.tensor(0)}
    digests = tensor_digests(base)
    assert digests == tensor_digests({"a": torch.zeros(2, 3), "n": torch.tensor(0)})
    for other in (torch.tensor([[0.0, 0, 0], [0, 0, -0.0]]), torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float64)):
        assert tensor_digests({"a": other})["a"] != digests["a"]
    maps = torch.randn(2, 3, 4, 4)
    assert tensor_digests({"m": maps}) == tensor_digests({"m": maps.contiguous(memory_format=torch.channels_last)})


def test_tensors_of_a_device_come_in_one_copy_with_the_same_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"a": torch.rand(3, 5), "count": torch.tensor(7), "none": torch.empty(0), "mask": torch.tensor([True])}
    contents = [tensor.reshape(-1).view(torch.uint8) for tensor in state.values()]
    copies = []
    whole = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: copies.append(1) or whole(tensor))
    parts = feature_cache.in_one_copy(contents)
    assert all(torch.equal(part, content) for part, content in zip(parts, contents, strict=True))
    assert len(copies) == 1


def test_a_gpu_passes_larger_batches_and_a_cpu_the_ones_that_its_entries_name() -> None:
    keys = [replace(KEY, compute=f"{device}/fp32") for device in ("cpu", "cuda")]
    assert [one.as_dict()["batch_size"] for one in keys] == [64, 256]
