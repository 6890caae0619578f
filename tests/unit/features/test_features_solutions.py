"""Small shared tensors: computed once, sound when read, never in the way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from feature_keys import KEY
from torch import Tensor

from tlsearch.core.types import CacheSpec
from tlsearch.features import feature_cache, open_solution

CACHE = CacheSpec()


class Counter:
    """Computes, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Tensor]:
        self.times += 1
        return {"a": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor([3])}


def entries(cache_path: Path) -> list[Path]:
    return sorted((cache_path / "solutions").glob("*.bin"))


def test_an_entry_is_computed_once_for_its_kind_settings_and_key(tmp_path: Path) -> None:
    compute = Counter()
    first = open_solution("probe", KEY, compute=compute, cache=CACHE)
    again = open_solution("probe", KEY, compute=compute, cache=CACHE)
    assert compute.times == 1
    for found in (first, again):
        assert torch.equal(found["a"], torch.arange(6.0).reshape(2, 3).t()) and found["n"].tolist() == [3]
    open_solution("other", KEY, compute=compute, cache=CACHE)
    open_solution("probe", KEY, compute=compute, cache=CACHE, settings={"classes": 3})
    assert compute.times == 3
    assert len(entries(tmp_path / "cache")) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "no data", "json"])
def test_a_damaged_entry_is_computed_anew(tmp_path: Path, damage: str) -> None:
    compute = Counter()
    open_solution("probe", KEY, compute=compute, cache=CACHE)
    (path,) = entries(tmp_path / "cache")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-5])
    elif damage == "no data":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{")
    found = open_solution("probe", KEY, compute=compute, cache=CACHE)
    assert compute.times == 2 and found["a"].shape == (3, 2)
    open_solution("probe", KEY, compute=compute, cache=CACHE)
    assert compute.times == 2


def test_writers_wait_for_one_another(tmp_path: Path) -> None:
    compute = Counter()
    threads = [
        threading.Thread(target=open_solution, args=("probe", KEY), kwargs={"compute": compute, "cache": CACHE})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compute.times == 1


def test_where_nothing_can_be_kept_it_is_computed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "solutions").write_text("a file where the folder should be")
    compute = Counter()
    found = open_solution("probe", KEY, compute=compute, cache=CACHE)
    assert found["n"].tolist() == [3] and compute.times == 1


def test_old_entries_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_solution("a", KEY, compute=Counter(), cache=CACHE)
    monkeypatch.setattr(feature_cache, "_BUDGET_GB", 2.5e-9 * entries(tmp_path / "cache")[0].stat().st_size)
    for kind in ("b", "c"):
        open_solution(kind, KEY, compute=Counter(), cache=CACHE)
    assert len(entries(tmp_path / "cache")) == 2
