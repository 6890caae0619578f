"""Listing of folders: layouts, what counts as an image, and the user's mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import load_index
from tlsearch.data.images.file_formats import IMAGE_SUFFIXES
from tlsearch.data.sources.left_out import JUNK, NO_SPLIT, STRAY


def load(path: Path, **split: object):
    return load_index(DataSpec(source="folder", path=str(path), split=SplitSpec(**split)))


def test_ready_splits_are_taken_as_they_are(ready_folder):
    index = load(ready_folder)
    assert index.classes == ("a", "b")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 12, "val": 6, "test": 4}
    assert index.splits["val"].keys[:3] == ("val/a/00.png", "val/a/01.png", "val/a/02.png")
    assert index.splits["val"].labels == (0, 0, 0, 1, 1, 1)


def test_train_and_val_without_test_is_fine(tmp_path, write_images):
    for split in ("train", "valid"):
        for name in ("a", "b"):
            write_images(tmp_path / split / name, 2)
    index = load(tmp_path)
    assert list(index.splits) == ["train", "val"]
    assert index.splits["val"].keys[0] == "valid/a/00.png"
    with pytest.raises(DataError, match="no 'test' split"):
        index.split("test")


def test_missing_val_is_split_from_train(tmp_path, write_images):
    for split in ("train", "test"):
        for name in ("a", "b"):
            write_images(tmp_path / split / name, 10)
    index = load(tmp_path, val=0.2, test=0.5)
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 16, "val": 4, "test": 20}
    assert all(key.startswith("train/") for key in index.splits["val"].keys)
    assert not set(index.splits["val"].keys) & set(index.splits["train"].keys)


def test_one_folder_per_class_is_split_in_three(tmp_path, write_images):
    write_images(tmp_path / "a", 20)
    write_images(tmp_path / "b" / "deeper" / "still", 10)
    index = load(tmp_path, val=0.2, test=0.1)
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 21, "val": 6, "test": 3}
    assert [index.splits["val"].labels.count(label) for label in (0, 1)] == [4, 2]
    assert list(load(tmp_path, val=0.2, test=0.0).splits) == ["train", "val"]


def test_a_class_may_be_called_train(tmp_path, write_images):
    for name in ("train", "bus"):
        write_images(tmp_path / name, 5)
    assert load(tmp_path).classes == ("bus", "train")


def test_train_that_may_be_class_or_split_is_refused(tmp_path, write_images):
    write_images(tmp_path / "train" / "steam", 5)
    write_images(tmp_path / "train" / "electric", 5)
    write_images(tmp_path / "bus", 5)
    with pytest.raises(DataError, match="is train/ a class or a split.*'bus'"):
        load(tmp_path)


def test_hidden_files_and_other_suffixes_do_not_count(ready_folder):
    before = load(ready_folder)
    (ready_folder / ".git").mkdir()
    (ready_folder / "train" / ".cache").mkdir()
    (ready_folder / "train" / "__MACOSX").mkdir()
    (ready_folder / "train" / "a" / "._00.png").write_bytes(b"junk")
    (ready_folder / "train" / "a" / "Thumbs.db").write_bytes(b"junk")
    (ready_folder / "train" / "a" / "notes.txt").write_text("notes")
    (ready_folder / "README.md").write_text("text")
    assert load(ready_folder) == before
    (ready_folder / "train" / "montage.PNG").write_bytes(b"stray")
    (ready_folder / "unlabelled").mkdir()
    (ready_folder / "unlabelled" / "x.jpeg").write_bytes(b"stray")
    after = load(ready_folder)
    assert after == before
    assert {left.reason: left.keys for left in after.left_out} == {
        JUNK: (".git/", "train/.cache/", "train/__MACOSX/", "train/a/._00.png", "train/a/Thumbs.db"),
        "labels, tables and text": ("README.md", "train/a/notes.txt"),
        STRAY: ("train/montage.PNG",),
        NO_SPLIT: ("unlabelled/x.jpeg",),
    }


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPG", ".Jfif"])
def test_suffixes_that_count(tmp_path, suffix):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}{suffix}").write_bytes(b"x")
    assert len(load(tmp_path).splits["train"]) == 2


def test_links_are_followed_once_and_dangling_ones_reported(tmp_path, write_images):
    root = tmp_path / "root"
    write_images(tmp_path / "elsewhere", 4)
    write_images(root / "a", 4)
    os.symlink(tmp_path / "elsewhere", root / "b")
    os.symlink(root, root / "a" / "loop")
    index = load(root)
    keys = [key for split in index.splits.values() for key in split.keys]
    assert sum(key.startswith("b/") for key in keys) == 4
    # The loop reaches b once more through a, and then ends.
    assert all(key.count("loop") <= 1 for key in keys)
    (root / "a" / "loop").unlink()
    for i in range(4):
        (root / "a" / f"{i:02d}.png").unlink()
        os.symlink(tmp_path / "nowhere.png", root / "a" / f"{i:02d}.png")
    with pytest.raises(DataError, match=r"a/0\d.png: cannot be read: No such file"):
        load(root)


def test_order_of_the_file_system_does_not_show(ready_folder, monkeypatch):
    before = load(ready_folder)
    real = os.scandir

    class Reversed:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert load(ready_folder) == before


def test_group_by_keeps_groups_together(tmp_path, write_images):
    for name in ("a", "b"):
        for patient in range(8):
            write_images(tmp_path / name / f"patient{patient}", 3)
    index = load(tmp_path, val=0.25, test=0.25, group_by=r"patient(\d+)/")
    of_patient: dict[str, set[str]] = {}
    for name, split in index.splits.items():
        for key in split.keys:
            of_patient.setdefault(key.split("/")[1], set()).add(name)
    assert all(len(names) == 1 for names in of_patient.values())
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 24, "val": 12, "test": 12}


def test_group_by_without_effect_warns(ready_folder, caplog):
    load(ready_folder, group_by="x")
    assert "group_by has no effect" in caplog.text


def _empty_class(root: Path) -> None:
    (root / "val" / "a" / "00.png").rename(root / "val" / "a" / "00.mp4")
    for path in (root / "val" / "a").glob("*.png"):
        path.unlink()


def _other_classes(root: Path) -> None:
    (root / "val" / "b").rename(root / "val" / "B")


def _no_train(root: Path) -> None:
    (root / "train").rename(root / ".train")


def _two_vals(root: Path) -> None:
    (root / "test").rename(root / "validation")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty_class, r"val: class folders without an image \(png jpg .*\): 'a' \(it holds videos: 1\)"),
        (_other_classes, r"every split must have the classes of train/: val/ lacks 'b'; val/ has 'B' in addition"),
        (_no_train, r"has test/, val/ but no train/"),
        (_two_vals, r"both val/ and validation/ are the val split"),
    ],
)
def test_faults_of_ready_splits(ready_folder, spoil, message):
    spoil(ready_folder)
    with pytest.raises(DataError, match=message):
        load(ready_folder)


def test_faults_of_the_root(tmp_path, write_images):
    with pytest.raises(DataError, match="must name a folder"):
        load_index(DataSpec(source="folder"))
    with pytest.raises(DataError, match=r"missing does not exist"):
        load(tmp_path / "missing")
    with pytest.raises(DataError, match="no class folders"):
        load(tmp_path)
    file = write_images(tmp_path / "emoji" / "train" / "a", 3)[0]
    write_images(tmp_path / "emoji" / "val" / "a", 3)
    with pytest.raises(DataError, match=r"00.png is a file"):
        load(file)
    with pytest.raises(
        DataError, match=r"only one class folder, emoji/; at least 2 are needed; did you mean .*/emoji\?"
    ):
        load(tmp_path)
    with pytest.raises(DataError, match=r"train: only one class folder, a/"):
        load(tmp_path / "emoji")
    with pytest.raises(DataError, match=r"data.source must be one of folder, .*, not 'folders'"):
        load_index(DataSpec(source="folders", path=str(tmp_path)))


def test_faults_of_splitting(tmp_path, write_images):
    write_images(tmp_path / "a", 9)
    write_images(tmp_path / "b", 2)
    with pytest.raises(DataError, match=r"at least 3 of each class are needed: 'b' \(2\)"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"must be a regular expression: '\('"):
        load(tmp_path, group_by="(")
    with pytest.raises(DataError, match=r"must match every image, it does not match 7: 'a/02.png'"):
        load(tmp_path, group_by="0[01]")
    write_images(tmp_path / "b", 9)
    with pytest.raises(DataError, match=r"too few groups.*class 'a' \(1 groups\) has none for"):
        load(tmp_path, group_by=r"\d")


@pytest.mark.skipif(os.name == "nt", reason="needs a file system that takes any bytes")
def test_class_names_must_be_utf8(tmp_path, write_images):
    write_images(tmp_path / "a", 3)
    os.rename(tmp_path / "a", os.fsencode(tmp_path) + b"/a\xff")
    write_images(tmp_path / "b", 3)
    with pytest.raises(DataError, match="must be valid UTF-8"):
        load(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="needs a file system that takes any bytes")
def test_file_names_may_be_any_bytes(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / name, 3)
        os.rename(tmp_path / name / "00.png", os.fsencode(tmp_path / name) + b"/\xff.png")
    assert sum(len(split) for split in load(tmp_path).splits.values()) == 6


# --- what would never end -------------------------------------------------------------------


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [r"(a+)+$", r"^(a|aa)+$", r"(.*a){20}b", r"(?=(a+)+b)c"])
def test_a_pattern_of_exponential_cost_is_given_up(tmp_path, write_images, monkeypatch, pattern):
    monkeypatch.setattr("tlsearch.data.sources.image_folder.LIMIT_S", 1.0)
    for name in ("x", "y"):
        for path in write_images(tmp_path / name, 4):
            path.rename(path.with_name("a" * 40 + path.name))
    with pytest.raises(DataError, match=r"group_by .* takes more than 1 s on 8 paths: repeats inside of repeats"):
        load(tmp_path, group_by=pattern)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("inside", ["", "inner/"])
def test_links_that_lead_round_in_circles_end(tmp_path, write_images, monkeypatch, inside):
    monkeypatch.setattr("tlsearch.data.sources.folder_walk.MAX_LINKED", 200)
    for name in ("a", "b"):
        write_images(tmp_path / name, 3)
        folders = [tmp_path / name / f"{inside}{number}" for number in range(9)]
        for folder in folders:
            folder.mkdir(parents=True)
            for other in folders:
                (folder / f"to_{other.name}").symlink_to(other, target_is_directory=True)
    with pytest.raises(DataError, match="more than 200 folders are reached through links"):
        load(tmp_path)


def test_one_circle_of_links_is_left_out(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / name, 4)
        (tmp_path / name / "up").symlink_to(tmp_path / name, target_is_directory=True)
    assert sum(len(split) for split in load(tmp_path).splits.values()) == 8


def test_folders_that_are_nested_too_deep(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / name, 4)
    (tmp_path / "a" / "/".join("d" * 500)).mkdir(parents=True)
    with pytest.raises(DataError, match="nested more than 100 deep"):
        load(tmp_path)


@pytest.mark.timeout(60)
def test_sparse_giants_and_devices_are_not_read(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / name, 4)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    assert sum(len(split) for split in load(tmp_path).splits.values()) == 8, "a pipe is no image"
    giant = tmp_path / "a" / "giant.jpg"
    with giant.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"giant.jpg: cannot be read: it has 1,099,511,627,776 bytes, more than"):
        load(tmp_path)
    giant.unlink()
    giant.symlink_to("/dev/zero")
    load(tmp_path)  # a device is no image, whatever its link is called
