"""Hugging Face sets: local ones made here; nothing is fetched."""

from __future__ import annotations

import builtins
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlsearch.data import image_name, load_index, open_pixels, read_bytes, read_image
from tlsearch.errors import DataError
from tlsearch.types import CacheSpec, DataSpec, SplitSpec, TransformSpec


@pytest.fixture
def hf(tmp_path, monkeypatch) -> Any:
    datasets = pytest.importorskip("datasets", reason="needs the extra huggingface")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return datasets


def load(**spec: Any):
    return load_index(DataSpec(source="huggingface", **spec))


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(hf: Any, labels: list[Any], seed: int = 0, **columns: tuple[list[Any], Any]) -> Any:
    """A set with the columns img and fine_label, and those of ``columns``."""
    values = {"img": [{"bytes": png(1000 * seed + i), "path": None} for i in range(len(labels))], "fine_label": labels}
    features = {"img": hf.Image(), "fine_label": hf.ClassLabel(names=["cat", "ant", "bee"])}
    for name, (value, feature) in columns.items():
        values[name], features[name] = value, feature
    return hf.Dataset.from_dict(values, features=hf.Features(features))


def saved(data: Any, path: Path) -> str:
    data.save_to_disk(str(path))
    return str(path)


def test_ready_splits(hf, tmp_path):
    parts = {"test": table(hf, [2, 1], 1), "train": table(hf, [1, 2, 1, 2]), "validation": table(hf, [2, 1], 2)}
    path = saved(hf.DatasetDict(parts), tmp_path / "set")
    index = load(path=path)
    assert index.classes == ("ant", "bee")  # the set's order, without the cat that no image shows
    assert {name: split.keys for name, split in index.splits.items()} == {
        "train": ("train/0", "train/2", "train/1", "train/3"),
        "val": ("val/1", "val/0"),
        "test": ("test/1", "test/0"),
    }
    assert read_bytes(index, "val/1") == png(2001)
    assert np.array_equal(np.asarray(read_image(index, "test/0")), np.asarray(Image.open(BytesIO(png(1000)))))
    assert image_name(index, "val/1") == f"the Hugging Face set {path}, val row 1"
    assert open_pixels(index, "val", TransformSpec(resize_size=6, crop_size=6), CacheSpec()).labels.tolist() == [0, 1]
    assert load(path=path) == index
    parts["test"] = table(hf, [2, 1], 7)
    assert load(path=saved(hf.DatasetDict(parts), tmp_path / "other")).digest == index.digest
    parts["train"] = table(hf, [1, 2, 1, 2], 8)
    assert load(path=saved(hf.DatasetDict(parts), tmp_path / "third")).digest != index.digest


def test_one_table_is_split(hf, tmp_path):
    index = load(path=saved(table(hf, [0, 1] * 10), tmp_path / "set"), split=SplitSpec(val=0.2, test=0.1))
    assert index.classes == ("cat", "ant")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 14, "val": 4, "test": 2}


def test_a_folder_of_images_and_one_of_parquet(hf, tmp_path, write_images):
    for part, count in (("train", 5), ("test", 2)):
        for name in ("a", "b"):
            write_images(tmp_path / "images" / part / name, count)
    index = load(path=str(tmp_path / "images"))
    assert index.classes == ("a", "b")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 8, "val": 2, "test": 4}
    contents = {path.read_bytes() for path in (tmp_path / "images" / "train").rglob("*.png")}
    assert {read_bytes(index, key) for key in (*index.splits["train"].keys, *index.splits["val"].keys)} == contents
    (tmp_path / "parquet").mkdir()
    table(hf, [0, 2] * 10).to_parquet(str(tmp_path / "parquet" / "train-0.parquet"))
    assert load(path=str(tmp_path / "parquet")).classes == ("cat", "bee")


def test_columns_are_found_or_named(hf, tmp_path):
    more = {
        "mask": ([{"bytes": png(i), "path": None} for i in range(20)], hf.Image()),
        "label": ([7, 10] * 10, hf.Value("int64")),
        "kind": (["x", "y"] * 10, hf.Value("string")),
    }
    path = saved(table(hf, [0, 1] * 10, **more), tmp_path / "set")
    with pytest.raises(DataError, match="it has img, mask; name one in data.image_column"):
        load(path=path)
    assert load(path=path, image_column="img").classes == ("cat", "ant")
    assert load(path=path, image_column="img", label_column="kind").classes == ("x", "y")
    assert load(path=path, image_column="img", label_column="label").classes == ("7", "10")
    with pytest.raises(DataError, match=r"data.image_column must be a column of images \(img, mask\), not 'kind'"):
        load(path=path, image_column="kind")
    with pytest.raises(DataError, match=r"must be a column of labels \(fine_label, label, kind\), not 'x'"):
        load(path=path, image_column="img", label_column="x")


def test_labels_that_cannot_be_told(hf, tmp_path):
    coarse = {"coarse_label": ([0, 1], hf.ClassLabel(names=["x", "y"]))}
    with pytest.raises(DataError, match="Name one in data.label_column: fine_label, coarse_label"):
        load(path=saved(table(hf, [0, 1], **coarse), tmp_path / "two"))
    plain = table(hf, [0, 1]).remove_columns("fine_label").add_column("kind", ["a", "b"])
    with pytest.raises(DataError, match="Name one in data.label_column: kind"):
        load(path=saved(plain, tmp_path / "none"))
    with pytest.raises(DataError, match="one column of images is needed, it has none; its columns are fine_label"):
        load(path=saved(table(hf, [0, 1]).remove_columns("img"), tmp_path / "text"))


def test_hidden_test_labels_and_unknown_splits(hf, tmp_path):
    parts = {"train": table(hf, [0, 1] * 4), "test": table(hf, [-1, -1], 1), "unsupervised": table(hf, [0, 1], 2)}
    index = load(path=saved(hf.DatasetDict(parts), tmp_path / "set"))
    assert [(left.reason, left.keys) for left in index.left_out] == [("rows without a label", ("test/0", "test/1"))]
    assert index.notes == ("left out, since it is not train, val or test: unsupervised (2 rows)",)
    assert sum(len(split) for split in index.splits.values()) == 8
    parts = {"validation": table(hf, [0, 1]), "test": table(hf, [0, 1])}
    with pytest.raises(DataError, match="has no split train, only validation, test"):
        load(path=saved(hf.DatasetDict(parts), tmp_path / "other"))


def test_a_row_without_an_image(hf, tmp_path):
    data = table(hf, [0, 1] * 4)
    values = [None if i == 3 else {"bytes": png(i), "path": None} for i in range(8)]
    data = data.remove_columns("img").add_column("img", values, feature=hf.Image())
    with pytest.raises(DataError, match="1 of .* images cannot be used(.|\n)*row 3: has no image"):
        load(path=saved(data, tmp_path / "set"), split=SplitSpec(val=0.25, test=0.0))


def test_nothing_is_fetched_unless_asked(hf, monkeypatch):
    with pytest.raises(DataError) as caught:
        load(name="someone/pictures")
    assert str(caught.value).startswith(
        "the Hugging Face set someone/pictures is not on this machine: set data.download to true to fetch it, "
        "or name a local copy in data.path"
    )
    assert not hf.config.HF_HUB_OFFLINE
    calls = []

    def fetch(path, **options):
        calls.append((path, options, hf.config.HF_HUB_OFFLINE))
        return hf.DatasetDict({"train": table(hf, [0, 1] * 10)})

    monkeypatch.setattr(hf, "load_dataset", fetch)
    load(name="someone/pictures", options={"name": "small"})
    load(name="someone/pictures", download=True)
    assert calls == [("someone/pictures", {"name": "small"}, True), ("someone/pictures", {}, False)]


def test_faults_of_the_spec(hf, tmp_path):
    with pytest.raises(DataError, match="needs either data.name .* or data.path"):
        load()
    with pytest.raises(DataError, match="needs either data.name .* or data.path"):
        load(name="x", path=str(tmp_path))
    with pytest.raises(DataError, match="data.path must be a folder"):
        load(path=str(tmp_path / "none"))
    with pytest.raises(DataError, match="cannot be loaded"):
        load(path=str(tmp_path))
    with pytest.raises(DataError, match="may be name, data_dir, revision, not 'streaming'"):
        load(name="x", options={"streaming": True})
    with pytest.raises(DataError, match="group_by is for folders"):
        load(name="x", split=SplitSpec(group_by="y"))


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(DataError, match=r"needs the package datasets: pip install 'tlsearch\[huggingface\]'"):
        load(name="x")
