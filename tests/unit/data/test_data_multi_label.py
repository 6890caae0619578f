"""Images with any number of classes: tables, their faults, stratified splits and folds, the data card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import data_card, fold_indexes, load_index, split_digest
from tlsearch.data.sources.listing import Item
from tlsearch.data.sources.manifest import table_task
from tlsearch.data.splits import split_items

CELLS = ("cat", "cat|dog", "", "dog", "cat | dog", "fox|cat", "fox", "dog|fox", "", "dog|cat|fox")


@pytest.fixture
def images(tmp_path: Path, write_images) -> Path:
    write_images(tmp_path / "images", 30)
    return tmp_path


def table(folder: Path, cells=CELLS * 3, *, splits=None) -> Path:
    lines = ["path,label" + (",split" if splits else "")]
    for number, cell in enumerate(cells):
        split = f",{splits[number % len(splits)]}" if splits else ""
        lines.append(f"images/{number:02d}.png,{cell}{split}")
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(path: Path, task: str = "multi_label"):
    return load_index(DataSpec(source="manifest", path=str(path), task=task, split=SplitSpec(val=0.3, test=0.0)))


def fault(path: Path, task: str = "multi_label") -> str:
    with pytest.raises(DataError) as caught:
        load(path, task)
    return str(caught.value)


def test_a_cell_names_all_classes_of_its_image(images: Path) -> None:
    index = load(table(images, CELLS, splits=("train", "val", "train", "train", "val")))
    assert index.classes == ("cat", "dog", "fox") and index.task == "multi_label"
    train, val = index.splits["train"], index.splits["val"]
    assert dict(zip(train.keys, train.labels, strict=True)) == {
        "images/00.png": (0,),
        "images/02.png": (),
        "images/03.png": (1,),
        "images/05.png": (0, 2),
        "images/07.png": (1, 2),
        "images/08.png": (),
    }
    assert val.labels == ((0, 1), (0, 1), (0, 1, 2), (2,))
    hot = index.label_array("val")
    assert hot.dtype == np.float32 and hot.shape == (4, 3)
    assert [tuple(np.flatnonzero(row)) for row in hot] == list(val.labels)


def test_lists_of_a_parquet_file_are_read_as_cells(images: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    labels = [[name.strip() for name in cell.split("|")] if cell else [] for cell in CELLS * 3]
    paths = [f"images/{number:02d}.png" for number in range(30)]
    pq.write_table(pa.table({"path": paths, "label": labels}), images / "table.parquet")
    index, written = load(images / "table.parquet"), load(table(images))
    assert {name: split.labels for name, split in index.splits.items()} == {
        name: split.labels for name, split in written.splits.items()
    }


def test_labels_count_in_the_digests(images: Path) -> None:
    one = load(table(images))
    other = load(table(images, ("cat|dog", *CELLS[1:], *CELLS * 2)))
    assert one.digest != other.digest
    assert split_digest(one.splits["train"]) != split_digest(one.splits["val"])
    assert one.digest == load(table(images)).digest


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("cat||dog", "line 2: the label 'cat||dog' has an empty name; names stand between bars, as cat|dog"),
        ("|", "line 2: the label '|' has an empty name"),
    ],
)
def test_faults_of_cells(images: Path, cell: str, message: str) -> None:
    assert message in fault(table(images, (cell, *CELLS[1:])))


def test_several_names_where_an_image_has_one_class(images: Path) -> None:
    path = table(images, ("cat", "cat|dog", "dog", "fox") * 5)
    text = fault(path, task="single_label")
    assert "line 3: the label 'cat|dog' names several classes, and data.task is single_label" in text
    assert "set data.task to multi_label" in text and "5 errors" in text
    assert table_task(str(path)) == "multi_label"


def test_a_bar_in_the_name_of_one_class_is_no_list(images: Path) -> None:
    path = table(images, ("cat", "red|green", "dog") * 8)
    assert load(path, task="single_label").classes == ("cat", "dog", "red|green")
    assert table_task(str(path)) == "single_label"


def test_a_class_that_a_split_has_no_image_of(images: Path) -> None:
    cells = ("cat|dog", "cat", "dog", "cat|fox")
    text = fault(table(images, cells * 2, splits=("train", "val", "val", "train")))
    assert "the class 'fox' has no image in val; every split must have all classes" in text
    text = fault(table(images, cells * 2, splits=("val", "train", "train", "val")))
    assert "the class 'fox' has no image in train" in text


def test_a_class_of_one_image_cannot_be_split(images: Path) -> None:
    cells = ("cat|dog", "cat", "dog|cat", "fox|dog")
    assert "too few images to split into train and val" in fault(table(images, cells))


def items(num: int, frequencies: list[float], seed: int = 0) -> list[Item]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num):
        label = tuple(int(one) for one in np.flatnonzero(rng.random(len(frequencies)) < frequencies))
        found.append(Item(key=f"{number:04d}", label=label, group=f"{number:04d}"))
    return found


def test_a_split_has_its_share_of_each_class_and_of_images_without_one() -> None:
    frequencies = [0.01, 0.05, 0.1, 0.3, 0.6]
    everything = items(900, frequencies)
    split = split_items(everything, "abcde", {"val": 0.2, "test": 0.1}, seed=0)
    assert sum(map(len, split.values())) == 900 and len({one.key for part in split.values() for one in part}) == 900
    for name, fraction in {"val": 0.2, "test": 0.1}.items():
        assert len(split[name]) == pytest.approx(900 * fraction, abs=15)
        for label in range(5):
            of_class = sum(label in one.label for one in everything)
            own = sum(label in one.label for one in split[name])
            assert own == pytest.approx(fraction * of_class, abs=max(2, 0.06 * of_class))
        none = sum(not one.label for one in everything)
        assert sum(not one.label for one in split[name]) == pytest.approx(fraction * none, abs=15)


def test_a_split_is_nearer_to_its_share_than_chance() -> None:
    everything = items(300, [0.02, 0.03, 0.05, 0.1, 0.2], seed=3)

    def count(part, label: int) -> int:
        return sum(label in one.label for one in part)

    def distance(part) -> float:
        return sum(abs(count(part, label) - 0.2 * count(everything, label)) for label in range(5))

    drawn = [distance([everything[i] for i in np.random.default_rng(s).permutation(300)[:60]]) for s in range(50)]
    assert distance(split_items(everything, "abcde", {"val": 0.2}, seed=0)["val"]) < 0.5 * np.mean(drawn)


def test_a_split_follows_from_its_seed_alone_and_keeps_groups_together() -> None:
    grouped = [Item(key=one.key, label=one.label, group=str(int(one.key) // 5)) for one in items(300, [0.2, 0.3, 0.1])]
    first, again = (split_items(order, "abc", {"val": 0.2}, seed=1) for order in (grouped, grouped[::-1]))
    assert first == again
    assert first != split_items(grouped, "abc", {"val": 0.2}, seed=2)
    groups = {name: {one.group for one in part} for name, part in first.items()}
    assert not groups["train"] & groups["val"]
    assert 0.1 * 300 < len(first["val"]) < 0.3 * 300


def test_folds_hold_each_image_out_once_with_every_class(images: Path) -> None:
    index = load(table(images))
    folds = fold_indexes(index, 3, seed=0)
    held = [key for fold in folds for key in fold.splits["val"].keys]
    assert sorted(held) == sorted(f"images/{number:02d}.png" for number in range(30))
    assert all(fold.label_array("val").any(0).all() and fold.task == "multi_label" for fold in folds)
    counts = np.array([fold.label_array("val").sum(0) for fold in folds])
    assert (counts.max(0) - counts.min(0)).max() <= 2


def test_the_data_card_counts_an_image_for_each_of_its_classes(images: Path) -> None:
    index = load(table(images))
    card = data_card(index, scan=False)
    total = {name: sum(part.per_class[name] for part in card.splits.values()) for name in index.classes}
    assert total == {"cat": 15, "dog": 15, "fox": 12}
    assert "classes of an image: 1.40 on average, at most 3; 6 of 30 images have none" in card.notes


def test_images_are_shown_with_all_their_classes(images: Path) -> None:
    (images / "images" / "01.png").write_bytes((images / "images" / "04.png").read_bytes())
    pairs = data_card(load(table(images)), scan=True)
    pair = (*pairs.leaks, *pairs.duplicates)[0]
    assert {pair.first.label, pair.second.label} == {"cat|dog"}
