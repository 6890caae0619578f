"""What ``check`` says about a data set."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlsearch.app.checks.check_file import check_file
from tlsearch.core.errors import DataError
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import load_index, open_pixels
from tlsearch.data.inspect.data_card import ImagePair, ImagePlace


@pytest.fixture
def space_path(tmp_path: Path) -> Path:
    """A space file beside images/ with train/, val/ and test/ of two classes."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                values = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                Image.fromarray(values).resize((40, 40)).save(folder / f"{number}.png")
    path = tmp_path / "space.yaml"
    path.write_text("name: a\ndata:\n  source: folder\n  path: images\nspace: {backbone: resnet18}\n")
    return path


def test_a_leak_is_told_with_both_paths_and_is_no_problem(space_path: Path) -> None:
    images = space_path.parent / "images"
    shutil.copy(images / "train/a/0.png", images / "test/b/9.png")
    report = check_file(space_path, with_model=False)
    assert report.ok
    assert report.data is not None and report.data.scanned == ("train", "val", "test")
    first = ImagePlace(path=str(images / "train/a/0.png"), split="train", label="a")
    second = ImagePlace(path=str(images / "test/b/9.png"), split="test", label="b")
    assert report.data.leaks == (ImagePair(kind="exact", first=first, second=second),)


def test_a_storage_that_cannot_be_made_is_a_problem_in_the_words_of_run(space_path: Path) -> None:
    space_path.write_text(f"{space_path.read_text()}storage: /proc/runs\n")
    (problem,) = check_file(space_path, with_model=False).problems
    assert (problem.dotted, problem.line) == ("storage", 6)
    assert problem.message.startswith("the search's folder /proc/runs/a-")
    assert problem.message.endswith(" cannot be made: No such file or directory")


def test_a_storage_that_can_be_made_is_left_unmade(space_path: Path) -> None:
    space_path.write_text(f"{space_path.read_text()}storage: new/runs\n")
    before = sorted(space_path.parent.iterdir())
    assert check_file(space_path, with_model=False).ok
    assert sorted(space_path.parent.iterdir()) == before


def test_corrupt_files_are_one_problem_with_their_paths(space_path: Path) -> None:
    images = space_path.parent / "images"
    for name in ("train/a/1.png", "test/b/2.png"):
        (images / name).write_bytes(b"junk")
    report = check_file(space_path, with_model=False)
    assert not report.ok
    assert [problem.dotted for problem in report.problems] == ["data"]
    message = report.problems[0].message
    assert message.startswith("2 of 18 images cannot be used")
    assert str(images / "train/a/1.png") in message and str(images / "test/b/2.png") in message
    assert [one.split for one in report.data.corrupt] == ["train", "test"]


def test_corrupt_files_of_other_channels_are_named_together_too(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for place in (f"{split}/{label}" for split in ("train", "val", "test") for label in ("a", "b")):
        folder = tmp_path / "images" / place
        folder.mkdir(parents=True)
        for number in range(4):
            np.save(folder / f"{number}.npy", random.integers(0, 65535, (8, 8, 5), dtype=np.uint16))
    path = tmp_path / "space.yaml"
    path.write_text("name: a\ndata:\n  source: folder\n  path: images\nspace: {backbone: resnet18}\n")
    assert check_file(path, with_model=False).data.channels == 5
    broken = [tmp_path / "images" / name for name in ("train/a/1.npy", "train/b/2.npy", "val/b/0.npy", "test/a/3.npy")]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-90])
    [problem] = check_file(path, with_model=False).problems
    assert problem.message.startswith("4 of 24 images cannot be used")
    assert [line.split(": ")[0].strip() for line in problem.message.splitlines()[1:]] == list(map(str, broken))


def test_a_long_list_of_corrupt_files_is_whole(space_path: Path) -> None:
    folder = space_path.parent / "images/train/a"
    for number in range(30):
        (folder / f"{'x' * 100}{number:02}.png").write_bytes(b"junk")
    lines = check_file(space_path, with_model=False).problems[0].message.splitlines()
    assert len(lines) == 22 and lines[-1] == "  and 10 more"
    assert all(str(folder) in line and "not an image" in line for line in lines[1:-1])


def test_a_set_that_cannot_be_listed_is_a_problem(space_path: Path) -> None:
    shutil.rmtree(space_path.parent / "images" / "val" / "b")
    report = check_file(space_path, with_model=False)
    assert [problem.dotted for problem in report.problems] == ["data"]
    assert "val: only one class folder" in report.problems[0].message
    assert report.data is None


def test_folders_that_may_be_splits_are_a_problem_with_the_card(space_path: Path) -> None:
    images = space_path.parent / "images"
    for split, name in (("train", "fold1"), ("val", "fold2"), ("test", "fold3")):
        (images / split).rename(images / name)
    report = check_file(space_path, with_model=False)
    assert [problem.dotted for problem in report.problems] == ["data"]
    assert "are these splits?" in report.problems[0].message
    assert report.data.classes == ("fold1", "fold2", "fold3")
    assert check_file(space_path, overrides=("data.layout=classes",), with_model=False).ok


def test_check_and_trials_have_one_limit_of_pixels(space_path: Path) -> None:
    images = space_path.parent / "images"
    Image.new("L", (12_000, 9_000)).save(images / "train/a/phone.jpg", quality=10)
    Image.new("RGB", (60_000, 1)).save(images / "val/b/thin.png")
    report = check_file(space_path, with_model=False)
    message = report.problems[0].message
    assert "phone.jpg: too many pixels: 12000 x 9000 are 108,000,000, at most 89,478,485 are read" in message
    assert "thin.png: too long and thin: 60000 x 1 pixels" in message
    index = load_index(DataSpec(source="folder", path=str(images)))
    for split in ("train", "val"):
        with pytest.raises(DataError, match="too many pixels|too long and thin"):
            open_pixels(index, split, TransformSpec(resize_size=8, crop_size=8), CacheSpec())
    (images / "val/b/thin.png").unlink()
    assert check_file(space_path, overrides=("data.max_pixels=108000000",), with_model=False).ok
    index = load_index(DataSpec(source="folder", path=str(images), max_pixels=108_000_000))
    assert len(open_pixels(index, "train", TransformSpec(resize_size=8, crop_size=8), CacheSpec()).labels) == 7


def test_a_metric_that_the_data_do_not_have_is_a_problem(space_path: Path) -> None:
    space_path.write_text(f"{space_path.read_text()}search: {{metric: val_top5_accuracy}}\n")
    [problem] = check_file(space_path, with_model=False).problems
    assert "val_top5_accuracy needs 10 classes or more; the data have 2: take val_accuracy" in problem.message
    assert (problem.dotted, problem.line) == ("search.metric", 6)


def test_fake_data_without_end_is_a_problem(space_path: Path) -> None:
    data = "{source: torchvision, name: FakeData, options: {size: 1000000000000}}"
    space_path.write_text(f"name: a\ndata: {data}\nspace: {{backbone: resnet18}}\n")
    [problem] = check_file(space_path, with_model=False).problems
    assert "size of torchvision's FakeData may be 4 to 100000, not 1000000000000" in problem.message


@pytest.mark.timeout(60)
def test_a_space_file_that_is_no_file_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with (tmp_path / "giant.yaml").open("wb") as file:
        file.truncate(1 << 40)
    for name, reason in (("pipe", "it is a named pipe, not a file"), ("giant", "it has 1,099,511,627,776 bytes")):
        [problem] = check_file(tmp_path / f"{name}.yaml", with_model=False).problems
        assert reason in problem.message
