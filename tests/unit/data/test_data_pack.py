"""The packed store: right pixels, one builder, nothing half-written ever trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import tlsearch.data.packed.streamed as squares
from tlsearch.core.errors import DamagedImages, DataError, StorageError
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import eval_image, load_index, open_pixels, read_image
from tlsearch.node_cache.locked_files import cache_directory
from tlsearch.node_cache.store import Store, close

SPEC = TransformSpec(resize_size=20, crop_size=16)


@pytest.fixture
def index(ready_folder):
    return load_index(DataSpec(source="folder", path=str(ready_folder)))


@pytest.fixture
def builds(monkeypatch) -> list[str]:
    """The splits built so far."""
    done: list[str] = []
    real = Store._build

    def build(self, path, key, *rest):
        done.append(key["split"])
        real(self, path, key, *rest)

    monkeypatch.setattr(Store, "_build", build)
    return done


def entries() -> list[Path]:
    return sorted(path for path in (cache_directory(CacheSpec()) / "images").iterdir() if path.name != "room.lock")


def entry(suffix: str) -> Path:
    (path,) = [path for path in entries() if path.suffix == suffix]
    return path


def test_pixels_are_the_evaluation_crops_in_order(index):
    pixels = open_pixels(index, "train", SPEC, CacheSpec())
    assert pixels.images.shape == (12, 3, 16, 16)
    assert pixels.images.dtype == torch.uint8
    assert pixels.images.is_contiguous(memory_format=torch.channels_last)
    assert pixels.labels.dtype == torch.int64
    assert pixels.labels.tolist() == [0] * 6 + [1] * 6
    for i, key in enumerate(index.splits["train"].keys):
        assert np.array_equal(pixels.images[i].permute(1, 2, 0).numpy(), eval_image(read_image(index, key), SPEC))


def test_squashed_images_are_packed_squashed(index):
    spec = TransformSpec(resize_size=20, crop_size=16, crop_mode="squash")
    images = open_pixels(index, "train", spec, CacheSpec()).images
    image = read_image(index, index.splits["train"].keys[0])
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), eval_image(image, spec))


def test_a_batch_keeps_channels_last(index):
    images = open_pixels(index, "train", SPEC, CacheSpec()).images[torch.tensor([3, 1, 4])]
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_margin_is_the_square_of_the_resize_around_the_crop(index):
    wide = open_pixels(index, "train", SPEC, CacheSpec(), margin=True).images
    assert wide.shape == (12, 3, 20, 20)
    narrow = open_pixels(index, "train", SPEC, CacheSpec()).images
    assert torch.equal(wide[:, :, 2:18, 2:18], narrow)
    # Without a margin both are one entry.
    flat = TransformSpec(resize_size=16, crop_size=16)
    a = open_pixels(index, "train", flat, CacheSpec())
    again = open_pixels(index, "train", flat, CacheSpec(), margin=True)
    assert again.images.data_ptr() == a.images.data_ptr()


def test_no_warning_and_no_write_reaches_the_file(index):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = open_pixels(index, "train", SPEC, CacheSpec()).images
    before = entry(".bin").read_bytes()
    images.zero_()
    close()
    assert entry(".bin").read_bytes() == before
    assert open_pixels(index, "train", SPEC, CacheSpec()).images.any()


def test_built_once_per_node_and_opened_once_per_process(index, builds, monkeypatch):
    first = open_pixels(index, "train", SPEC, CacheSpec())
    close()
    again = open_pixels(index, "train", SPEC, CacheSpec())
    assert builds == ["train"]
    assert torch.equal(again.images, first.images)
    monkeypatch.setattr("tlsearch.node_cache.store.map_array", None)  # would fail if it were called
    assert open_pixels(index, "train", SPEC, CacheSpec()).images.data_ptr() == again.images.data_ptr()


@pytest.mark.parametrize(
    "other",
    [
        TransformSpec(resize_size=21, crop_size=16),
        TransformSpec(resize_size=20, crop_size=15),
        TransformSpec(resize_size=20, crop_size=16, interpolation="bicubic"),
        TransformSpec(resize_size=20, crop_size=16, crop_mode="squash"),
    ],
)
def test_another_resize_is_another_entry(index, builds, other):
    open_pixels(index, "val", SPEC, CacheSpec())
    open_pixels(index, "val", other, CacheSpec())
    assert len(builds) == 2


def test_mean_and_std_share_an_entry(index, builds):
    open_pixels(index, "val", SPEC, CacheSpec())
    open_pixels(index, "val", TransformSpec(resize_size=20, crop_size=16, mean=(0.5,) * 3), CacheSpec())
    assert builds == ["val"]


def test_changed_data_and_other_versions_are_other_entries(ready_folder, index, builds, monkeypatch, write_images):
    open_pixels(index, "train", SPEC, CacheSpec())
    write_images(ready_folder / "val" / "a", 4, size=(9, 9))
    changed = load_index(DataSpec(source="folder", path=str(ready_folder)))
    open_pixels(changed, "train", SPEC, CacheSpec())
    monkeypatch.setattr("PIL.__version__", "0.0")
    open_pixels(changed, "train", SPEC, CacheSpec())
    assert len(builds) == 3


def _cut(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size - 1)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: _flip(entry(".bin")),
        lambda: entry(".json").unlink(),
        lambda: entry(".bin").unlink(),
        lambda: _cut(entry(".bin")),
        lambda: entry(".bin").write_bytes(b""),
        lambda: entry(".json").write_text("{"),
        lambda: entry(".json").write_text("[]"),
        lambda: entry(".json").write_text('{"crc32": 3}'),
    ],
)
def test_an_entry_that_is_not_whole_is_built_anew(index, builds, spoil):
    want = open_pixels(index, "val", SPEC, CacheSpec()).images.clone()
    close()
    spoil()
    assert torch.equal(open_pixels(index, "val", SPEC, CacheSpec()).images, want)
    assert len(builds) == 2


def test_one_builds_and_the_others_wait(index, monkeypatch, builds):
    real = squares.decode_image

    def slow(data, name, **options):
        time.sleep(0.02)
        return real(data, name)

    monkeypatch.setattr(squares, "decode_image", slow)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: open_pixels(index, "train", SPEC, CacheSpec()), range(4)))
    assert builds == ["train"]
    assert len({result.images.data_ptr() for result in results}) == 1


def test_all_corrupt_files_are_reported_together(ready_folder, index):
    for name in ("train/a/01.png", "train/b/05.png"):
        path = ready_folder / name
        path.write_bytes(path.read_bytes()[:60])
    (ready_folder / "train/b/00.png").write_bytes(b"")
    index = load_index(DataSpec(source="folder", path=str(ready_folder)))
    with pytest.raises(DamagedImages) as caught:
        open_pixels(index, "train", SPEC, CacheSpec())
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 of 12 images cannot be used")
    assert [str(Path(line.strip().split(": ")[0]).relative_to(ready_folder)) for line in lines[1:]] == [
        "train/a/01.png",
        "train/b/00.png",
        "train/b/05.png",
    ]
    assert [path.suffix for path in entries()] == [".lock"]
    assert len(open_pixels(index, "val", SPEC, CacheSpec()).labels) == 6


def test_of_many_corrupt_files_the_first_20_are_named(tmp_path):
    for name in ("a", "b"):
        for split in ("train", "val"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(15):
                (tmp_path / split / name / f"{i:02d}.png").write_bytes(b"junk")
    index = load_index(DataSpec(source="folder", path=str(tmp_path)))
    with pytest.raises(DataError) as caught:
        open_pixels(index, "train", SPEC, CacheSpec())
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[0].startswith("30 of 30")
    assert lines[-1] == "  and 10 more"


def test_a_file_that_changed_since_the_listing_is_refused(ready_folder, index, write_images):
    write_images(ready_folder / "train" / "a", 1, size=(30, 30))
    with pytest.raises(DamagedImages, match=r"a/00.png: has changed since the data set was listed"):
        open_pixels(index, "train", SPEC, CacheSpec())


def test_a_file_that_cannot_be_read_is_not_called_damaged(ready_folder, index):
    (ready_folder / "train" / "a" / "00.png").unlink()  # as where a share is away for a moment
    with pytest.raises(DataError, match=r"1 of 12 images .*(.|\n)*a/00.png: cannot be read") as caught:
        open_pixels(index, "train", SPEC, CacheSpec())
    assert not isinstance(caught.value, DamagedImages)


def test_a_full_disk_is_said_and_leaves_nothing(index, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"image cache .* cannot be written: No space left on device"):
        open_pixels(index, "val", SPEC, CacheSpec())
    assert [path.suffix for path in entries()] == [".lock"]


_SLOW_BUILD = """
import sys, time
import tlsearch.data.packed.packed as pack
import tlsearch.data.packed.streamed as squares
from tlsearch.data import load_index, open_pixels
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec

pack._CHUNK = 1
real = squares.decode_image
def slow(data, name, **options):
    if "b/00" in name:
        print("half way", flush=True)
        time.sleep(600)
    return real(data, name)
squares.decode_image = slow
index = load_index(DataSpec(source="folder", path=sys.argv[1]))
open_pixels(index, "train", TransformSpec(resize_size=20, crop_size=16), CacheSpec())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_writer_leaves_nothing_that_is_trusted(ready_folder, index, builds):
    command = [sys.executable, "-c", _SLOW_BUILD, str(ready_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        os.kill(process.pid, signal.SIGKILL)
    assert sorted(path.suffix for path in entries()) == [".lock", ".tmp"]
    pixels = open_pixels(index, "train", SPEC, CacheSpec())
    assert builds == ["train"]
    key = index.splits["train"].keys[-1]
    assert np.array_equal(pixels.images[-1].permute(1, 2, 0).numpy(), eval_image(read_image(index, key), SPEC))
    assert sorted(path.suffix for path in entries()) == [".bin", ".json", ".lock"]
