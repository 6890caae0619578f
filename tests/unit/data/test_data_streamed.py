"""Sets beyond the cache's budget: the same pixels, decoded ahead; and entries that make room for others."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import tlsearch.data.packed.streamed as streamed
from tlsearch.core.errors import DamagedImages
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import StreamedImages, load_index, open_pixels
from tlsearch.node_cache.locked_files import cache_directory
from tlsearch.node_cache.store import close

SPEC = TransformSpec(resize_size=20, crop_size=16)
TRAIN_BYTES = 12 * 16 * 16 * 3  # of the packed train images


@pytest.fixture
def index(ready_folder):
    return load_index(DataSpec(source="folder", path=str(ready_folder)))


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The rows decoded so far."""
    done: list[int] = []
    real = streamed.decode_square

    def decode(index, members, row, spec):
        done.append(row)
        return real(index, members, row, spec)

    monkeypatch.setattr(streamed, "decode_square", decode)
    return done


def gigabytes(count: float) -> CacheSpec:
    return CacheSpec(images_gb=count / 1e9)


def packed(suffix: str = ".bin") -> list[Path]:
    return sorted((cache_directory(CacheSpec()) / "images").glob(f"*{suffix}"))


# --- decoding as it is read --------------------------------------------------------------


@pytest.mark.parametrize("margin", [False, True])
def test_the_pixels_are_those_of_the_store(index, margin):
    whole = open_pixels(index, "train", SPEC, CacheSpec(), margin=margin)
    close()
    for path in packed(".json"):
        path.unlink()
    pixels = open_pixels(index, "train", SPEC, gigabytes(1000), margin=margin)
    assert isinstance(pixels.images, StreamedImages)
    assert pixels.images.shape == tuple(whole.images.shape)
    assert torch.equal(pixels.labels, whole.labels)
    for rows in (torch.tensor([3, 1, 11, 3]), slice(0, 5), slice(10, 40), torch.arange(12)):
        batch = pixels.images[rows]
        assert batch.dtype == torch.uint8
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch, whole.images[rows])


def test_what_does_not_fit_is_said_and_left_unpacked(index, caplog):
    with caplog.at_level(logging.WARNING):
        open_pixels(index, "train", SPEC, gigabytes(TRAIN_BYTES - 1))
    assert "the train images at 16 px are decoded in every epoch: they take 9.22e-06 GB" in caplog.text
    assert packed() == packed(".json") == packed(".tmp") == []
    assert isinstance(open_pixels(index, "val", SPEC, gigabytes(TRAIN_BYTES - 1)).images, torch.Tensor)


def test_what_is_expected_is_decoded_ahead_and_once(index, decoded):
    images = open_pixels(index, "train", SPEC, gigabytes(1)).images
    order = torch.tensor([5, 2, 7, 0, 11, 3])
    images.expect(order.tolist())
    images._pool.submit(lambda: None).result()
    images._pool.shutdown(wait=True)  # nothing can be submitted from here on
    assert sorted(decoded) == [0, 2, 3, 5, 7, 11]
    for batch in order.split(2):
        images[batch]
    assert len(decoded) == 6


def test_slices_are_followed(index, decoded):
    images = open_pixels(index, "train", SPEC, gigabytes(1)).images
    images[0:4]
    images._pool.shutdown(wait=True)
    assert sorted(decoded) == list(range(12))
    images[4:8], images[8:12]
    assert len(decoded) == 12


def test_no_more_is_decoded_ahead_than_is_kept(index, decoded, monkeypatch):
    monkeypatch.setattr(streamed, "_AHEAD", 3)
    images = open_pixels(index, "train", SPEC, gigabytes(1)).images
    images.expect(range(12))
    assert len(images._ready) == 3
    whole = torch.cat([images[rows] for rows in torch.arange(12).split(5)])
    assert torch.equal(whole, images[0:12])
    images.expect([1, 2])
    images.expect([4])
    assert list(images._ready) == [4]


def test_broken_images_are_named_when_they_are_read(ready_folder, index):
    for name in ("a/01.png", "b/05.png"):
        (ready_folder / "train" / name).write_bytes(b"junk")
    images = open_pixels(index, "train", SPEC, gigabytes(1)).images
    assert images[2:4].shape == (2, 3, 16, 16)
    with pytest.raises(DamagedImages, match=r"2 of 12 images .*(.|\n)*a/01.png: has changed since .*(.|\n)*b/05.png"):
        images[torch.arange(12)]
    (ready_folder / "train" / "a" / "03.png").unlink()
    index = load_index(DataSpec(source="folder", path=str(ready_folder)))
    images = open_pixels(index, "train", SPEC, gigabytes(1)).images
    with pytest.raises(DamagedImages, match=r"a/01.png: is not an image"):
        images[0:3]


def test_its_threads_end_with_it(index):
    pixels = open_pixels(index, "train", SPEC, gigabytes(1))
    pixels.images[0:4]
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    close()
    del pixels
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("decode"):
            thread.join(timeout=240)
            assert not thread.is_alive()


# --- room in the store -------------------------------------------------------------------


def open_and_leave(index, split: str, size: int, cache: CacheSpec) -> None:
    open_pixels(index, split, TransformSpec(resize_size=size, crop_size=size), cache)
    close()
    gc.collect()


def sides() -> list[int]:
    """Sides of the packed squares of train, by the size of their files."""
    return [round((path.stat().st_size / 36) ** 0.5) for path in packed()]


def test_the_least_recently_used_entry_makes_room(index):
    cache = gigabytes(2.5 * TRAIN_BYTES)
    for side, age in ((14, 100), (15, 300), (13, 200)):
        open_and_leave(index, "train", side, cache)
        newest = max(packed(".json"), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (1e9 - age, 1e9 - age))
    assert sorted(sides()) == [13, 14, 15]
    open_and_leave(index, "train", 14, cache)  # used again
    open_and_leave(index, "train", 16, cache)
    assert sorted(sides()) == [13, 14, 16]
    open_and_leave(index, "train", 19, cache)
    assert sorted(sides()) == [16, 19]


def test_an_entry_in_use_stays(index):
    cache = gigabytes(1.5 * TRAIN_BYTES)
    first = open_pixels(index, "train", SPEC, cache)
    before = first.images.clone()
    second = open_pixels(index, "train", TransformSpec(resize_size=15, crop_size=15), cache)
    assert isinstance(second.images, StreamedImages)
    assert len(packed()) == 1
    assert torch.equal(first.images, before)
    images = first.images
    del first
    close()
    third = open_pixels(index, "train", TransformSpec(resize_size=15, crop_size=15), cache)
    assert isinstance(third.images, StreamedImages)  # a tensor alone keeps its entry
    del images
    close()
    gc.collect()
    fourth = open_pixels(index, "train", TransformSpec(resize_size=15, crop_size=15), cache)
    assert isinstance(fourth.images, torch.Tensor)
    assert sides() == [15]


def test_what_this_process_no_longer_uses_makes_room(index):
    cache = gigabytes(1.5 * TRAIN_BYTES)
    open_pixels(index, "train", SPEC, cache)  # still among the handles
    assert isinstance(
        open_pixels(index, "train", TransformSpec(resize_size=15, crop_size=15), cache).images, torch.Tensor
    )
    assert sides() == [15]


_READER = """
import sys
from tlsearch.data import load_index, open_pixels
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
index = load_index(DataSpec(source="folder", path=sys.argv[1]))
pixels = open_pixels(index, "train", TransformSpec(resize_size=20, crop_size=16), CacheSpec())
total = int(pixels.images.sum())
print("open", flush=True)
sys.stdin.readline()
assert int(pixels.images.sum()) == total
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs flock")
def test_an_entry_that_another_process_reads_stays(ready_folder, index):
    command = [sys.executable, "-c", _READER, str(ready_folder)]
    small = TransformSpec(resize_size=15, crop_size=15)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        assert isinstance(open_pixels(index, "train", small, gigabytes(1.5 * TRAIN_BYTES)).images, StreamedImages)
        assert sides() == [16]
        reader.communicate("\n")
    assert reader.returncode == 0
    close()
    assert isinstance(open_pixels(index, "train", small, gigabytes(1.5 * TRAIN_BYTES)).images, torch.Tensor)
    assert sides() == [15]


def test_nothing_is_removed_for_what_cannot_fit(index):
    open_and_leave(index, "train", 16, CacheSpec())
    images = open_pixels(index, "train", TransformSpec(resize_size=30, crop_size=30), gigabytes(2 * TRAIN_BYTES)).images
    assert isinstance(images, StreamedImages)
    assert sides() == [16]


def test_what_killed_writers_left_is_removed(index):
    folder = cache_directory(CacheSpec()) / "images"
    folder.mkdir()
    (folder / ".0123.abc.tmp").write_bytes(bytes(2 * TRAIN_BYTES))
    assert isinstance(open_pixels(index, "train", SPEC, gigabytes(1.5 * TRAIN_BYTES)).images, torch.Tensor)
    assert packed(".tmp") == []


def test_auto_leaves_half_of_the_disk(index, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(1.9 * TRAIN_BYTES))
    assert isinstance(open_pixels(index, "train", SPEC, CacheSpec()).images, StreamedImages)
    close()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(2.1 * TRAIN_BYTES))
    assert isinstance(open_pixels(index, "train", SPEC, CacheSpec()).images, torch.Tensor)
