"""Hugging Face sets: local ones made here; nothing is fetched."""

from __future__ import annotations

import builtins
import hashlib
import importlib
import inspect
import json
import os
import re
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from web_site import Site

from tlsearch.core.errors import DataError
from tlsearch.core.types import CacheSpec, DataSpec, SplitSpec, TransformSpec
from tlsearch.data import load_index, open_pixels, read_image
from tlsearch.data.libraries.hub import MODULES


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
    assert index.reader.read("val/1") == png(2001)
    assert np.array_equal(np.asarray(read_image(index, "test/0")), np.asarray(Image.open(BytesIO(png(1000)))))
    assert index.reader.name("val/1") == f"the Hugging Face set {path}, val row 1"
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
    assert {index.reader.read(key) for key in (*index.splits["train"].keys, *index.splits["val"].keys)} == contents
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


# --- the Hub ------------------------------------------------------------------------------------


@pytest.fixture
def hub(site: Site, hf: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """The Hub on this machine, with a set of two configurations."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", site.address)
    readme = "---\nconfigs:\n- config_name: small\n  default: true\n  data_files:\n  - split: train\n"
    readme += "    path: small/train-*\n- config_name: large\n  data_files: large/*.parquet\n---\n"
    table(hf, [0, 2] * 10).to_parquet(str(tmp_path / "t.parquet"))
    files = {"README.md": readme.encode(), "small/train-0.parquet": (tmp_path / "t.parquet").read_bytes()}
    files |= {"large/0.parquet": b"PAR1", "loader.py": b"raise SystemExit"}
    publish(site, files)
    return site


def publish(site: Site, files: dict[str, bytes]) -> None:
    siblings: list[dict[str, Any]] = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    for one in siblings:
        if one["rfilename"].endswith(".parquet"):
            one["lfs"] = {"sha256": hashlib.sha256(files[one["rfilename"]]).hexdigest()}
    listed = json.dumps({"sha": "c0ffee", "siblings": siblings}).encode()
    site.files = {f"/datasets/u/set/resolve/c0ffee/{name}": content for name, content in files.items()}
    site.files["/api/datasets/u/set/revision/main?blobs=true"] = listed


def test_a_set_of_the_hub_is_fetched_once_and_no_more_of_it_than_is_loaded(hub: Site) -> None:
    index = load(name="u/set", download=True)
    assert index.classes == ("cat", "bee")
    assert {path.rpartition("c0ffee/")[2] for path in hub.asked[1:]} == {"README.md", "small/train-0.parquet"}
    asked = len(hub.asked)
    assert load(name="u/set").digest == index.digest, "what was fetched needs no download: true"
    assert len(hub.asked) == asked


def test_a_file_of_the_hub_that_is_another_is_not_kept(hub: Site, tmp_path: Path) -> None:
    path = "/datasets/u/set/resolve/c0ffee/small/train-0.parquet"
    hub.files[path] = hub.files[path][:-1] + b"?"
    with pytest.raises(DataError, match="u/set cannot be loaded: .* should have the sha256"):
        load(name="u/set", download=True)
    assert not list((tmp_path / "cache").rglob("train-0*"))
    with pytest.raises(DataError, match="is not on this machine"):
        load(name="u/set")


def test_a_page_in_place_of_the_hubs_list(hub: Site) -> None:
    hub.files["/api/datasets/u/set/revision/main?blobs=true"] = b"<html>Sign in</html>"
    with pytest.raises(DataError, match="is not a list of the files of a data set"):
        load(name="u/set", download=True)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/../../x", "a\\..\\x"])
def test_a_list_of_the_hub_stays_inside_the_set(hub: Site, name: str, tmp_path: Path) -> None:
    publish(hub, {name: b"x"})
    with pytest.raises(DataError, match="lists a file outside of itself"):
        load(name="u/set", download=True)


@pytest.mark.parametrize("name", ["../set", "a/../b", "a/b/c", "u/set?x", "https://x/y"])
def test_names_that_are_none(hf: Any, name: str) -> None:
    with pytest.raises(DataError, match="must be the ID of a set on the Hub"):
        load(name=name, download=True)


# --- what a local set names ---------------------------------------------------------------------


@pytest.mark.parametrize("files", ["{url}/data.csv", "/etc/*.csv", "../outside/*.csv", "hf://datasets/u/set/*.csv"])
def test_a_card_that_names_files_elsewhere(hf: Any, site: Site, tmp_path: Path, files: str) -> None:
    for folder in ("set", "outside"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.csv").write_text("text,label\na,0\n")
    site.files["/data.csv"] = b"text,label\na,0\n"
    files = files.format(url=site.address)
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: '{files}'\n---\n")
    with pytest.raises(DataError, match="cannot be loaded|names a data file outside"):
        load(path=str(tmp_path / "set"))
    assert site.asked == [], "nothing is fetched"


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "/dev/zero", "a/../../secret.png", "link.png"])
@pytest.mark.timeout(60)
def test_a_table_that_names_images_outside(hf: Any, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(png(1))
    features = hf.Features({"img": hf.Image(), "fine_label": hf.ClassLabel(names=["a", "b"])})
    rows = {"img": [{"bytes": None, "path": path}] * 20, "fine_label": [0, 1] * 10}
    (tmp_path / "set").mkdir()
    made = hf.Dataset.from_dict(rows, features=features).data.table  # to_parquet would embed the images
    pq.write_table(made, tmp_path / "set" / "train.parquet")
    if path == "link.png":
        (tmp_path / "set" / path).symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"names a file outside of the set|is a link out of"):
        load(path=str(tmp_path / "set"))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_metadata_that_names_images_outside(hf: Any, tmp_path: Path, write_images: Any, name: str) -> None:
    write_images(tmp_path / "set", 4)
    (tmp_path / "secret.png").write_bytes(png(1))
    rows = [f"{i:02d}.png,{i % 2}" for i in range(4)] + [f"{name},0"]
    (tmp_path / "set" / "metadata.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="cannot be loaded|outside of the set"):
        load(path=str(tmp_path / "set"))


@pytest.mark.timeout(60)
def test_what_is_not_a_regular_file_of_a_local_set(hf: Any, tmp_path: Path, write_images: Any) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "set" / name, 6)
    odd = tmp_path / "set" / "a" / "odd.png"
    os.mkfifo(odd)
    with pytest.raises(DataError, match="odd.png: cannot be read: it is a named pipe, not a file"):
        load(path=str(tmp_path / "set"))
    odd.unlink()
    with odd.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="it has 1,099,511,627,776 bytes"):
        load(path=str(tmp_path / "set"))
    odd.unlink()
    odd.symlink_to(tmp_path / "set" / "b", target_is_directory=True)
    with pytest.raises(DataError, match="is a link to a folder"):
        load(path=str(tmp_path / "set"))


def test_a_snapshot_of_the_hubs_cache_holds_links_to_its_blobs(hf: Any, tmp_path: Path) -> None:
    repo = tmp_path / "datasets--u--set"
    (repo / "snapshots" / "c0ffee").mkdir(parents=True)
    (repo / "blobs").mkdir()
    table(hf, [0, 2] * 10).to_parquet(str(repo / "blobs" / "x"))
    (repo / "snapshots" / "c0ffee" / "train.parquet").symlink_to("../../blobs/x")
    assert load(path=str(repo / "snapshots" / "c0ffee")).classes == ("cat", "bee")


@pytest.mark.parametrize(("file", "key"), [("state.json", "_data_files"), ("dataset_dict.json", "splits")])
def test_a_saved_set_that_names_files_outside(hf: Any, tmp_path: Path, file: str, key: str) -> None:
    data = table(hf, [0, 1] * 10)
    saved(data if file == "state.json" else hf.DatasetDict({"train": data}), tmp_path / "set")
    content = json.loads((tmp_path / "set" / file).read_text())
    content[key] = [{"filename": "../x.arrow"}] if file == "state.json" else ["../other"]
    (tmp_path / "set" / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match="names a file outside of its folder: '../"):
        load(path=str(tmp_path / "set"))


def test_a_kind_of_files_that_was_not_reviewed(hf: Any, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="read by datasets' module text; images are read by arrow, "):
        load(path=str(tmp_path))


@pytest.mark.parametrize("module", MODULES)
def test_the_code_of_each_module_of_datasets_loads_no_pickle(hf: Any, module: str) -> None:
    code = importlib.import_module(f"datasets.packaged_modules.{module}.{module}")
    lines = [line for line in inspect.getsource(code).splitlines() if not line.strip().startswith("#")]
    risky = r"pickle|torch\.load|np\.load|\beval\(|\bexec\(|import_module|read_pickle"
    found = {line.strip() for line in lines if re.search(risky, line)}
    assert all("weights_only=True" in line or "allow_pickle=False" in line for line in found), found
