"""Manifests: CSV and Parquet, ready and made splits, groups, and every fault with its line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import load_index, read_image, require_ready


def load(path: Path, **split: object):
    return load_index(DataSpec(source="manifest", path=str(path), split=SplitSpec(**split)))


@pytest.fixture
def images(tmp_path, write_images) -> Path:
    """images/a/00.png to 09.png, images/b/00.png to 09.png beside the manifests."""
    for name in ("a", "b"):
        write_images(tmp_path / "images" / name, 10)
    return tmp_path


def rows(**columns: str) -> list[dict[str, str]]:
    """All images labelled by their folder, with more columns by a format of (label, i)."""
    return [
        {"path": f"images/{label}/{i:02d}.png", "label": label}
        | {name: text.format(label=label, i=i, third=i % 3) for name, text in columns.items()}
        for label in ("a", "b")
        for i in range(10)
    ]


def write_csv(path: Path, rows: list[dict[str, str]], *, delimiter: str = ",") -> Path:
    lines = [delimiter.join(rows[0]), *(delimiter.join(row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_parquet(path: Path, columns: Mapping[str, list[object]]) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(dict(columns)), path)
    return path


def with_splits() -> list[dict[str, str]]:
    table = rows()
    for i, row in enumerate(table):
        row["split"] = ("train", "train", "Validation", "train", "test")[i % 5]
    return table


def fault(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(path)
    return str(caught.value)


def test_ready_splits(images):
    index = load(write_csv(images / "m.csv", with_splits()))
    assert index.classes == ("a", "b")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert index.splits["val"].keys == tuple(f"images/{c}/{i}.png" for c in "ab" for i in ("02", "07"))
    assert index.splits["val"].labels == (0, 0, 1, 1)
    assert len(index.splits["train"].digests) == 12
    assert index.splits["test"].digests == ()
    assert index.root == str(images)
    assert read_image(index, "images/a/03.png").size == (12, 10)


def test_the_test_files_stay_closed(images):
    write_csv(images / "m.csv", with_splits())
    for name in ("a", "b"):
        (images / "images" / name / "04.png").write_bytes(b"")
        (images / "images" / name / "04.png").chmod(0)
    first = load(images / "m.csv").digest
    (images / "images" / "a" / "09.png").write_bytes(b"other")
    assert load(images / "m.csv").digest == first


def test_without_splits_it_is_split_like_a_folder(images):
    made = load(write_csv(images / "m.csv", rows()), val=0.2, test=0.1)
    assert {name: len(split) for name, split in made.splits.items()} == {"train": 14, "val": 4, "test": 2}
    table = [row | {"split": "train" if i % 5 else "test"} for i, row in enumerate(rows())]
    index = load(write_csv(images / "m.csv", table), val=0.25)
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 12, "val": 4, "test": 4}


def test_groups_stay_in_one_split(images):
    table = rows(group="{label}{third}")
    table[3]["group"] = ""  # an image of its own
    index = load(write_csv(images / "m.csv", table), val=0.3, test=0.0)
    groups = {row["path"]: row["group"] or row["path"] for row in table}
    train, val = ({groups[key] for key in index.splits[name].keys} for name in ("train", "val"))
    assert not train & val
    assert sum(len(split) for split in index.splits.values()) == 20


def test_parquet_equals_csv(images):
    table = with_splits()
    write_csv(images / "m.csv", table)
    columns = {name: [row[name] for row in table] for name in ("label", "split", "path")}
    write_parquet(images / "m.parquet", columns | {"weight": [1.5] * 20})
    assert load(images / "m.parquet") == load(images / "m.csv")


def test_whole_numbers_are_labels(images):
    columns = {"path": [row["path"] for row in rows()], "label": [7] * 10 + [12] * 10}
    assert load(write_parquet(images / "m.parquet", columns)).classes == ("12", "7")
    path = write_parquet(images / "m.parquet", columns | {"label": [0.5] * 20})
    assert fault(path) == f"{path}, row 1: the label must be text or a whole number, not 0.5 (float)"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_quotes_marks_and_empty_lines(images, delimiter):
    table = [{"path": f'"{row["path"]}"', " label": f" {row['label']} "} for row in rows()]
    path = write_csv(images / "m.csv", table, delimiter=delimiter)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert load(path) == load(write_csv(images / "plain.csv", rows()))


def test_paths_may_be_written_in_several_ways(images):
    plain = load(write_csv(images / "m.csv", rows()))
    table = rows()
    table[0]["path"] = str(images / "images/a/00.png")
    table[1]["path"] = "./images/b/../a/01.png"
    assert load(write_csv(images / "other.csv", table)) == plain
    (images / "tables").mkdir()
    beside = load(write_csv(images / "tables" / "m.csv", [row | {"path": "../" + row["path"]} for row in rows()]))
    assert read_image(beside, "../images/a/00.png").tobytes() == read_image(plain, "images/a/00.png").tobytes()
    with pytest.raises(DataError, match=rf"{images}/images/a/77.png: cannot be read"):
        read_image(beside, "../images/a/77.png")


def test_missing_columns_name_the_near_ones(images):
    path = images / "m.csv"
    path.write_text("file,Label\nx.png,a\n")
    assert fault(path) == (
        f"{path}: the column 'path' is missing; the column 'label' is missing; is it 'Label'?; "
        "a manifest has the columns path, label and perhaps split and group, this one has file, Label"
    )


def test_all_faults_of_rows_are_listed_with_their_lines(images):
    table = with_splits()
    table[0]["path"] = "images\\a\\0.png"
    table[1]["label"] = ""
    table[2]["split"] = "holdout"
    table[5]["path"] = "images/a"
    table[7]["split"] = ""
    table[8] = table[3] | {"label": "b"}
    table[13] = table[12].copy()
    path = write_csv(images / "m.csv", table)
    assert fault(path).splitlines() == [
        f"{path}: 7 errors:",
        f"  {path}, line 2: {images}/images\\a\\0.png does not exist; slashes stand between folders",
        f"  {path}, line 3: the label is empty",
        f"  {path}, line 4: the split must be train, val or test, not 'holdout'",
        f"  {path}, line 7: {images}/images/a is not a file",
        f"  {path}, line 9: the split is empty, though other rows have one",
        f"  {path}, line 10: images/a/03.png stands already in line 5, with the labels 'a' and 'b'",
        f"  {path}, line 15: images/b/02.png stands already in line 14",
    ]


def test_of_many_faults_the_first_20_are_named(images):
    path = write_csv(images / "m.csv", [{"path": f"no/{i}.png", "label": "a"} for i in range(50)])
    lines = fault(path).splitlines()
    assert lines[0].endswith("50 errors:")
    assert len(lines) == 22
    assert lines[-1] == "  and 30 more"


def test_a_class_that_a_split_lacks(images):
    table = with_splits()
    for row in table[10:]:
        row["split"] = "train" if row["split"] == "Validation" else row["split"]
    path = write_csv(images / "m.csv", table)
    assert fault(path) == f"{path}, line 12: the class 'b' has no image in val; every split must have all classes"
    path = write_csv(images / "m.csv", rows()[:10])
    assert fault(path) == f"{path}: at least 2 classes are needed, the column label has a"


def test_a_group_torn_between_ready_splits(images):
    table = [row | {"group": f"patient{i % 5}"} for i, row in enumerate(with_splits())]
    table[6]["group"] = "patient2"
    path = write_csv(images / "m.csv", table)
    assert fault(path).splitlines()[0] == (f"{path}, line 8: the group 'patient2' is in train here, in val in line 4")


def test_no_split_called_train(images):
    path = write_csv(images / "m.csv", rows(split="val"))
    assert fault(path) == f"{path}, line 2: no row of the split train"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"path,label\nx.png\n", ", line 2: has 1 value, the header has 2"),
        (b"path,label\nx.png,\xff\n", ", line 2: must be UTF-8"),
        (b'path,label\n"x.png,a\n', ", line 2: is not valid CSV"),
        (b"path,label,path\n", ": the column 'path' stands twice"),
        (b"path,label\n", ": has no rows"),
        (b"", "this one has none"),
    ],
)
def test_broken_csv(tmp_path, text, want):
    (tmp_path / "m.csv").write_bytes(text)
    assert want in fault(tmp_path / "m.csv")


def test_broken_files_and_settings(images):
    (images / "m.parquet").write_bytes(b"junk")
    assert "m.parquet: is not a readable Parquet file" in fault(images / "m.parquet")
    (images / "m.json").write_text("{}")
    assert "a manifest must be a .csv, .tsv or .parquet file" in fault(images / "m.json")
    assert fault(images) == f"data.path must be a file: {images} is a folder"
    assert fault(images / "none.csv") == f"data.path must be a file: {images}/none.csv does not exist"
    path = write_csv(images / "m.csv", rows())
    with pytest.raises(DataError, match="a manifest names groups in its column 'group'"):
        load(path, group_by="x")
    with pytest.raises(DataError, match=r"data.path must name a .csv, .tsv or .parquet file"):
        load_index(DataSpec(source="manifest"))


def test_a_column_that_is_nearly_ours_is_asked_about(images):
    table = [{"Split" if key == "split" else key: value for key, value in row.items()} for row in with_splits()]
    index = load(write_csv(images / "m.csv", [row | {"weight": "1"} for row in table]))
    assert set(index.notes[0].removeprefix("columns that are not read: ").split(", ")) == {"Split", "weight"}
    with pytest.raises(DataError, match="the column 'Split' is not read; call it 'split'"):
        require_ready(index)
    columns = {name: [row[name] for row in rows()] for name in ("label", "path")}
    index = load(write_parquet(images / "m.parquet", columns | {"weight": [1.5] * 20}))
    assert index.notes == ("columns that are not read: weight",)
    require_ready(index)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_that_is_no_file_or_endless(tmp_path, suffix):
    path = tmp_path / f"images.{suffix}"
    os.mkfifo(path)
    with pytest.raises(DataError, match="must be a file"):
        load_index(DataSpec(source="manifest", path=str(path)))
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="cannot be read: it has 1,099,511,627,776 bytes, more than"):
        load_index(DataSpec(source="manifest", path=str(path)))
