"""Which folders are splits: names as public data sets write them, and a question where it is not clear."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec
from tlsearch.data import load_index, require_ready
from tlsearch.data.sources.folder_layout import read_split_names


def load(path: Path, **options: object):
    return load_index(DataSpec(source="folder", path=str(path), **options))


@pytest.fixture
def make(tmp_path, write_images):
    """Writes six images into each folder, and gives the root."""

    def write(*folders: str) -> Path:
        for folder in folders:
            write_images(tmp_path / folder, 6)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, "train") for name in ("train", "Train", "TRAIN", "training", "Training", "train_set", "Training Set")],
        *[
            (name, "train")
            for name in ("trainset", "TrainImages", "train-data", "train2017", "seg_train", "ｔｒａｉｎ")
        ],
        *[
            (name, "val")
            for name in ("val", "VAL", "Valid", "validation", "Validation_Set", "dev", "valset", "val2017")
        ],
        *[(name, "test") for name in ("test", "Testing", "TEST_SET", "test_images", "testdata", "tst")],
        ("eval", "val"),
        ("Evaluation", "val"),
        *[(name, None) for name in ("trainer", "cat", "train_val", "trains", "contest", "valley", "my-train", "")],
    ],
)
def test_names_of_splits(name, split):
    assert read_split_names([name]).get(name) == split


def test_eval_is_test_where_val_is_another():
    assert read_split_names(["train", "eval", "test"]) == {"train": "train", "eval": "val", "test": "test"}
    assert read_split_names(["train", "valid", "eval"]) == {"train": "train", "valid": "val", "eval": "test"}


@pytest.mark.parametrize(
    ("folders", "sizes", "note"),
    [
        (("Train", "Val", "Test"), {"train": 12, "val": 12, "test": 12}, "train is Train/, val is Val/, test is Test/"),
        (("Training", "Testing"), {"train": 10, "val": 2, "test": 12}, "train is Training/, test is Testing/"),
        (("train", "valid", "test"), {"train": 12, "val": 12, "test": 12}, "val is valid/"),
        (("training_set", "test_set"), {"train": 10, "val": 2, "test": 12}, "test is test_set/"),
        (("TRAIN", "dev"), {"train": 12, "val": 12}, "val is dev/"),
    ],
)
def test_splits_in_any_spelling(make, folders, sizes, note):
    index = load(make(*(f"{folder}/{name}" for folder in folders for name in ("cat", "dog"))))
    assert index.classes == ("cat", "dog")
    assert {name: len(split) for name, split in index.splits.items()} == sizes
    assert note in index.notes[0]
    require_ready(index)


def test_our_own_names_need_no_note(ready_folder):
    assert load(ready_folder).notes == ()


def test_a_folder_inside_a_folder_of_its_name(make):
    tails = ("buildings", "forest")
    index = load(make(*(f"{part}/{part}/{name}" for part in ("seg_train", "seg_test") for name in tails)))
    assert index.classes == tails
    assert index.splits["test"].keys[0] == "seg_test/seg_test/buildings/00.png"


def test_two_folders_for_one_split_are_refused(make):
    root = make(*(f"{part}/{name}" for part in ("train", "Val", "valid") for name in "ab"))
    with pytest.raises(DataError, match=r"both Val/ and valid/ are the val split; keep one"):
        load(root)


def test_images_of_a_split_without_classes_are_left_out(make):
    root = make("train/a", "train/b", "test")
    index = load(root)
    assert list(index.splits) == ["train", "val"]
    assert [(left.reason, len(left.keys)) for left in index.left_out] == [
        ("images of a split that are in no class folder", 6)
    ]
    make("bus")
    with pytest.raises(DataError, match=r"is train/ a class or a split\? Move 'bus' away"):
        load(root)


@pytest.mark.parametrize(
    "folders",
    [
        ("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"),
        ("Entrenamiento/a", "Entrenamiento/b", "Prueba/a", "Prueba/b"),
        ("2023/a", "2023/b", "2023/c", "2024/a", "2024/b"),  # a class is missing in one
        ("my-train-v2/a", "my-train-v2/b", "my-test-v2/c", "my-test-v2/d"),
        ("cat/train", "cat/val", "dog/train", "dog/val"),
        ("cat/Train", "cat/Test", "dog/Train"),
    ],
)
def test_folders_that_look_like_splits_are_asked_about(make, folders):
    root = make(*folders)
    index = load(root)
    with pytest.raises(DataError, match=r"are these splits\?.*layout: classes"):
        require_ready(index)
    answered = load(root, layout="classes")
    require_ready(answered)
    assert answered == index  # the question changes nothing about the listing


@pytest.mark.parametrize(
    "folders",
    [
        ("cat", "dog"),
        ("animals/cat", "animals/dog", "vehicles/car", "vehicles/bus"),
        ("cat/images", "dog/images"),  # as in Tiny ImageNet
        ("cat/indoor", "cat/outdoor", "cat", "dog/indoor", "dog/outdoor"),
        ("toys/train", "toys/ball", "food/apple", "food/pear"),
    ],
)
def test_classes_are_not_asked_about(make, folders):
    require_ready(load(make(*folders)))


def test_images_of_inner_folders_are_said_to_count(make):
    index = load(make("animals/cat", "animals/dog", "plants"))
    assert index.classes == ("animals", "plants")
    assert "images in folders inside a class folder count for that class: animals/cat/ (6), animals/dog/ (6)" in (
        index.notes
    )


def test_a_link_that_may_be_a_class_is_refused(make):
    root = make("a", "b")
    os.symlink(root / "nowhere", root / "c")
    with pytest.raises(DataError, match=r"links that lead nowhere, so that a split or a class may be missing: 'c'"):
        load(root)


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "école") for form in ("NFC", "NFD"))


def test_unicode_forms_of_a_class_folder_are_one_class(make):
    index = load(make(f"train/{COMPOSED}", f"train/{DECOMPOSED}", "train/x", f"val/{DECOMPOSED}", "val/x"))
    assert index.classes == ("x", COMPOSED)
    train = index.splits["train"]
    assert train.labels.count(1) == 12 and index.splits["val"].labels.count(1) == 6
    assert f"train/{DECOMPOSED}/00.png" in train.keys and f"train/{COMPOSED}/00.png" in train.keys
    assert "several Unicode forms" in index.notes[0]


def test_data_in_one_unicode_form_keep_order_and_digest(make, monkeypatch):
    # As before names were composed: sorted and hashed as the folders are written.
    index = load(make(DECOMPOSED, "x", "f"))
    assert index.classes == (COMPOSED, "f", "x")
    monkeypatch.setattr("tlsearch.data.sources.class_names.nfc", lambda name: name)
    monkeypatch.setattr("tlsearch.data.sources.image_folder.nfc", lambda name: name)
    before = load(make(DECOMPOSED, "x", "f"))
    assert before.classes == (DECOMPOSED, "f", "x")
    assert (before.digest, before.splits) == (index.digest, index.splits)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("Cat", "cat"), "nearly agree: 'Cat' and 'cat'"),
        (("cat", "cat ", "dog"), "nearly agree: 'cat' and 'cat '"),
        (("cat", "c\u200bat"), "nearly agree: 'cat' and 'c\\u200bat'"),
        (("cat", "\uff43at"), "nearly agree"),
        (("a b", "a\u00a0b"), "nearly agree: 'a b' and 'a\\xa0b'"),
        (("cat ", "dog"), "blanks at an end or hidden characters: 'cat '"),
    ],
)
def test_names_that_nearly_agree_are_said(make, names, note):
    index = load(make(*names))
    assert len(index.classes) == len(names)
    assert any(note in one for one in index.notes)


def test_joiners_inside_names_are_no_remark(make):
    assert load(make("\U0001f468\u200d\U0001f469", "می\u200cخواهم")).notes == ()


def test_splits_whose_classes_nearly_agree_are_told_so(make):
    with pytest.raises(DataError, match=r"val/ lacks 'Cat'; val/ has 'cat' in addition; 'Cat' and 'cat' nearly agree"):
        load(make("train/Cat", "train/x", "val/cat", "val/x"))
