"""The index: its digest, the digits, and test files that nobody opens."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tlsearch.core.errors import DataError
from tlsearch.core.types import CacheSpec, DataSpec, SplitSpec, TransformSpec
from tlsearch.data import load_index, open_pixels, read_image, with_val_in_train

_OPENED: list[str] | None = None


def _hear(event: str, args: tuple[object, ...]) -> None:
    if _OPENED is not None and event == "open":
        _OPENED.append(str(args[0]))


sys.addaudithook(_hear)  # hooks stay for good; this one listens only inside opened_files


@contextmanager
def opened_files() -> Iterator[list[str]]:
    global _OPENED
    _OPENED = opened = []
    try:
        yield opened
    finally:
        _OPENED = None


def load(path: Path, **split: object):
    return load_index(DataSpec(source="folder", path=str(path), split=SplitSpec(**split)))


def test_no_test_file_is_opened(ready_folder, tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / "unsplit" / name, 10)
    for root in (ready_folder, tmp_path / "unsplit"):
        with opened_files() as opened:
            index = load(root)
            for split in ("train", "val"):
                open_pixels(index, split, TransformSpec(resize_size=8, crop_size=8), CacheSpec())
        images = {os.path.relpath(path, root) for path in opened if path.startswith(str(root))}
        assert images == {*index.splits["train"].keys, *index.splits["val"].keys}
        assert len(index.splits["test"]) > 0
        assert index.splits["test"].digests == ()


def test_the_digest_covers_what_it_should(ready_folder):
    first = load(ready_folder).digest
    assert load(ready_folder).digest == first

    def after(change) -> str:
        changed = ready_folder.parent / "changed"
        shutil.copytree(ready_folder, changed)
        change(changed)
        digest = load(changed).digest
        shutil.rmtree(changed)
        return digest

    assert after(lambda root: None) == first  # neither the root nor the times count
    assert after(lambda root: (root / "test/a/00.png").write_bytes(b"other")) == first
    seen = {first}
    for change in (
        lambda root: (root / "train/a/00.png").write_bytes(b"other"),
        lambda root: (root / "val/b/00.png").write_bytes(b"other"),
        lambda root: (root / "train/a/00.png").rename(root / "train/a/x.png"),
        lambda root: (root / "train/a/00.png").rename(root / "train/b/x.png"),
        lambda root: (root / "train/a/00.png").rename(root / "val/a/x.png"),
        lambda root: (root / "test/a/00.png").rename(root / "test/a/x.png"),
        lambda root: [(root / split / "a").rename(root / split / "A") for split in ("train", "val", "test")],
    ):
        seen.add(after(change))
    assert len(seen) == 8


def test_unchanged_files_are_hashed_once(ready_folder):
    first = load(ready_folder)
    with opened_files() as opened:
        assert load(ready_folder) == first
    assert not [path for path in opened if path.endswith(".png")]
    path = ready_folder / "val" / "a" / "01.png"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)  # same size
    assert load(ready_folder).digest != first.digest


def test_read_image_names_what_cannot_be_read(ready_folder):
    index = load(ready_folder)
    assert read_image(index, "train/a/00.png").size == (12, 10)
    (ready_folder / "train/a/00.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"train/a/00.png: the file is empty"):
        read_image(index, "train/a/00.png")
    (ready_folder / "train/a/00.png").unlink()
    with pytest.raises(DataError, match=r"train/a/00.png: cannot be read: No such file"):
        read_image(index, "train/a/00.png")


def test_digits():
    index = load_index(DataSpec(source="digits", split=SplitSpec(val=0.2, test=0.1)))
    assert index.classes == tuple("0123456789")
    assert sum(len(split) for split in index.splits.values()) == 1797
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 1259, "val": 359, "test": 179}
    for split in index.splits.values():
        counts = np.bincount(split.labels)
        assert counts.max() - counts.min() <= 6
    image = np.asarray(read_image(index, "0000"))  # the first row is a zero
    assert image.shape == (8, 8, 3)
    assert image.max() in range(230, 256)
    assert image[:, 0].max() == 0
    assert image[3, 4].tolist() == [0, 0, 0]  # the hole in the middle


def test_digits_are_split_by_seed():
    first = load_index(DataSpec(source="digits"))
    assert load_index(DataSpec(source="digits")) == first
    other = load_index(DataSpec(source="digits", split=SplitSpec(seed=1)))
    assert other.digest != first.digest
    with pytest.raises(DataError, match="group_by is for folders"):
        load_index(DataSpec(source="digits", split=SplitSpec(group_by="x")))


def test_emoji(emoji_path):
    index = load(emoji_path)
    assert len(index.classes) == 16
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 996, "val": 348, "test": 344}
    pixels = open_pixels(index, "val", TransformSpec(resize_size=110, crop_size=96), CacheSpec())
    assert pixels.images.shape == (348, 3, 96, 96)
    assert pixels.labels.tolist() == list(index.splits["val"].labels)
    assert (pixels.images[:, :, :4, :4] > 250).float().mean() > 0.5  # the drawings' transparent ground is white


def test_emoji_grouped_by_drawing(emoji_path, tmp_path):
    # Of one emoji there are two vendors' drawings: a split that tears them apart leaks.
    index = load(emoji_path / "train", group_by=r"([0-9a-f-]+)\.")
    homes: dict[str, set[str]] = {}
    for name, split in index.splits.items():
        for key in split.keys:
            homes.setdefault(key.split("/")[1].split(".")[0], set()).add(name)
    assert max(len(home) for home in homes.values()) == 1
    assert abs(len(index.splits["val"]) / 996 - 0.15) < 0.02
    assert abs(len(index.splits["test"]) / 996 - 0.15) < 0.02


def test_val_in_train_is_another_data_set():
    index = load_index(DataSpec(source="digits"))
    merged = with_val_in_train(index)
    train, val = index.splits["train"], index.splits["val"]
    assert set(merged.splits["train"].keys) == {*train.keys, *val.keys}
    assert len(merged.splits["train"]) == len(train) + len(val)
    label_of = dict(zip((*train.keys, *val.keys), (*train.labels, *val.labels), strict=True))
    assert all(
        label_of[key] == label
        for key, label in zip(merged.splits["train"].keys, merged.splits["train"].labels, strict=True)
    )
    assert merged.splits["val"] == val and merged.splits["test"] == index.splits["test"]
    assert merged.digest != index.digest
