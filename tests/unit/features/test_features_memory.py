"""A worker that reads a store which another has built takes next to no memory of its own for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from feature_keys import KEY
from PIL import Image
from torch import Tensor

from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import load_index, open_pixels
from tlsearch.features import Features, open_features
from tlsearch.node_cache.store import close

NUM_ROWS, NUM_FEATURES = 4096, 4096  # 64 MiB
ROWS = f"torch.ones(16, {NUM_FEATURES})"
SIDE, NUM_IMAGES = 256, 300  # 56 MiB of pixels

# Opens an entry, reads all of it in batches as a trial does, and says by how many bytes the memory that is this
# process's own (RssAnon: neither files nor shared) has grown; then how many bytes the entry has. Batches that are freed
# stay in the heap at the allocator's whim: they are given back first.
_READER = """
import sys
import torch
from tlsearch.train.cpu.heap import trim_heap
from tlsearch.train.loop.device_rows import gather

def own_bytes():
    trim_heap()
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def read(rows):
    return max(int(gather(rows, index).max()) for index in torch.randperm(len(rows)).split(8))

{preamble}
read({warm_up})  # of batches as large as those to come: what reading itself takes is counted before
before = own_bytes()
rows = {opened}
read(rows)
print(own_bytes() - before, rows.numel() * rows.element_size())
"""


def growth(tmp_path: Path, *, warm_up: str, preamble: str, opened: str) -> float:
    """By what share of an entry a second process's own memory grows."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    script = _READER.format(warm_up=warm_up, preamble=preamble, opened=opened)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    grown, size = map(int, done.stdout.split())
    assert size > 50e6
    return grown / size


def batches() -> Iterator[Tensor]:
    for _ in range(NUM_ROWS // 64):
        yield torch.randn(64, NUM_FEATURES)


_FEATURES = """
from tlsearch.features import FeatureKey, open_features
from tlsearch.core.types import CacheSpec, TransformSpec
key = {key!r}
def compute():
    raise AssertionError("computed twice")
"""


def test_the_second_worker_holds_no_copy_of_the_features(tmp_path: Path) -> None:
    built = open_features(KEY, num_rows=NUM_ROWS, compute=batches, cache=CacheSpec())
    assert isinstance(built, Features) and built.built
    close()
    opened = f"open_features(key, num_rows={NUM_ROWS}, compute=compute, cache=CacheSpec()).rows"
    assert growth(tmp_path, warm_up=ROWS, preamble=_FEATURES.format(key=KEY), opened=opened) < 0.1


_IMAGES = """
from tlsearch.data import load_index, open_pixels
from tlsearch.data.packed import streamed
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
index = load_index(DataSpec(source="folder", path={path!r}))
def decode(*args):
    raise AssertionError("decoded twice")
streamed.decode_image = decode
"""


@pytest.mark.slow
def test_the_second_worker_holds_no_copy_of_the_images(tmp_path: Path) -> None:
    for split, count in (("train", NUM_IMAGES), ("val", 2)):
        for name in ("a", "b"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count // 2):
                Image.new("RGB", (SIDE, SIDE), (number % 256, 7, len(split))).save(folder / f"{number}.png")
    spec = f"TransformSpec(resize_size={SIDE}, crop_size={SIDE})"
    index = load_index(DataSpec(source="folder", path=str(tmp_path / "images")))
    open_pixels(index, "train", TransformSpec(resize_size=SIDE, crop_size=SIDE), CacheSpec())
    close()
    opened = f'open_pixels(index, "train", {spec}, CacheSpec()).images'
    warm_up = f"torch.zeros(16, {SIDE}, {SIDE}, 3, dtype=torch.uint8).permute(0, 3, 1, 2)"
    preamble = _IMAGES.format(path=str(tmp_path / "images"))
    assert growth(tmp_path, warm_up=warm_up, preamble=preamble, opened=opened) < 0.1


@pytest.mark.slow
def test_a_copy_would_be_noticed(tmp_path: Path) -> None:
    assert growth(tmp_path, warm_up=ROWS, preamble="", opened=f"torch.randn({NUM_ROWS}, {NUM_FEATURES})") > 0.9
