"""Folds over train and val: each image held out once, classes even, groups whole, rows of one shared pool."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import fold_indexes, load_index, with_val_in_train
from tlsearch.data.sources.listing import Item
from tlsearch.data.splits import fold_items


def make_items(*counts: int, group_of: int = 1) -> list[Item]:
    return [
        Item(key=f"{label}/{number:04}", label=label, group=f"{label}/{number // group_of}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 7), st.lists(st.integers(7, 40), min_size=1, max_size=5), st.integers(0, 5))
def test_folds_hold_each_image_once_and_each_class_evenly(num_folds: int, counts: list[int], seed: int) -> None:
    items, names = make_items(*counts), [f"class{label}" for label in range(len(counts))]
    folds = fold_items(items, names, num_folds, seed)
    assert sorted(item.key for fold in folds for item in fold) == sorted(item.key for item in items)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1
    for label, count in enumerate(counts):
        held = [sum(item.label == label for item in fold) for fold in folds]
        assert set(held) <= {count // num_folds, -(-count // num_folds)}


def test_a_group_stays_in_one_fold() -> None:
    folds = fold_items(make_items(40, 40, group_of=4), ["a", "b"], 5, 0)
    of_group = [{item.group for item in fold} for fold in folds]
    assert len(set.union(*of_group)) == sum(map(len, of_group)) == 20
    assert [Counter(item.label for item in fold) for fold in folds] == [{0: 8, 1: 8}] * 5


def test_another_seed_gives_other_folds_and_the_order_of_the_images_none() -> None:
    items = make_items(20, 20)
    first = fold_items(items, ["a", "b"], 5, 0)
    assert fold_items(items[::-1], ["a", "b"], 5, 0) == first
    assert fold_items(items, ["a", "b"], 5, 1) != first


def test_a_class_with_fewer_images_or_groups_than_folds_is_named() -> None:
    with pytest.raises(DataError, match=r"search.folds 5 needs 5 images of each class.*: 'rare' \(4\); at most 4"):
        fold_items(make_items(20, 4), ["common", "rare"], 5, 0)
    with pytest.raises(DataError, match=r"too few groups.*class 'a' \(3 groups\) has none for fold"):
        fold_items(make_items(30, 30, group_of=10), ["a", "b"], 5, 0)


def grouped_folder(root: Path) -> DataSpec:
    for split, shoots in (("train", "pqrs"), ("val", "t"), ("test", "u")):
        for channel, name in enumerate(("blue", "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for shoot in shoots:
                for number in range(2):
                    colour = [40 * ord(shoot) % 200, 10 * number, 3 * channel]
                    Image.new("RGB", (8, 8), tuple(colour)).save(folder / f"{shoot}_{number}.png")
    return DataSpec(source="folder", path=str(root), split=SplitSpec(group_by=r"(\w)_\d"))


def test_folds_of_a_data_set_are_rows_of_the_pool_that_a_refit_trains_on(tmp_path: Path) -> None:
    spec = grouped_folder(tmp_path / "images")
    index = load_index(spec)
    folds, pool = fold_indexes(index, 5, seed=0), with_val_in_train(index)
    assert len({fold.digest for fold in (*folds, pool)}) == 6
    for fold in folds:
        assert fold.splits["test"] == index.splits["test"]
        assert {key.split("/")[-1][0] for key in fold.splits["val"].keys}.isdisjoint(
            key.split("/")[-1][0] for key in fold.splits["train"].keys
        )
        for name in ("train", "val"):
            kept, split = fold.kept(name), fold.splits[name]
            assert kept.index.digest == pool.digest
            assert kept.split == "train"
            assert kept.rows is not None
            assert pool.splits["train"].part(kept.rows) == split
    held = sorted(key for fold in folds for key in fold.splits["val"].keys)
    assert held == sorted(pool.splits["train"].keys)
    assert index.kept("val").rows is None
