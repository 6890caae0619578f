"""Images in a bucket: the same data set as in a folder, fetched once to a node, whole, and the test split never."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import WriteImages
from services import ObjectStore, object_store

from tlsearch.core.errors import DataError
from tlsearch.core.types import CacheSpec, DataSpec, TransformSpec
from tlsearch.data import load_index, open_pixels, read_image
from tlsearch.data.fetch.bucket_images import RemoteFolder, RemoteReader, remote_problem
from tlsearch.doctor.storage_marks import data_problem

SECRET = "only-in-the-environment"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store(secret=SECRET) as store:
        yield store


@pytest.fixture
def bucket(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of an empty bucket; its credentials are in the environment."""
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.name)):020d}"
    store.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def images(tmp_path: Path, write_images: WriteImages) -> Path:
    root = tmp_path / "images"
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for label in ("cat", "dog"):
            write_images(root / split / label, count)
    write_images(root / "train" / "cat" / "deep er", 1)
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"")
    return root


def remote(bucket: str) -> DataSpec:
    return DataSpec(source="folder", path=f"s3://{bucket}/some/images")


def copies(spec: DataSpec) -> dict[str, int]:
    """This node's copies: their inodes by path."""
    root = Path(load_index(spec).root)
    return {path.relative_to(root).as_posix(): path.stat().st_ino for path in root.rglob("*.png")}


def test_a_bucket_is_the_same_data_set_as_a_folder(images: Path, bucket: str, store: ObjectStore) -> None:
    store.upload(images, bucket, "some/images")
    here, there = load_index(DataSpec(source="folder", path=str(images))), load_index(remote(bucket))
    assert there == replace(here, root=there.root) and here.digest == there.digest
    assert "train/cat/deep er/00.png" in there.splits["train"].keys
    spec = TransformSpec(resize_size=10, crop_size=8)
    assert open_pixels(there, "val", spec, CacheSpec()).images.shape == (4, 3, 8, 8)


def test_objects_are_fetched_once_and_those_of_the_test_split_never(
    images: Path, bucket: str, store: ObjectStore
) -> None:
    store.upload(images, bucket, "some/images")
    first = copies(remote(bucket))
    assert sorted(first) == sorted(
        path.relative_to(images).as_posix()
        for part in ("train", "val")
        for path in (images / part).rglob("*.png")
        if not path.name.startswith(".")
    )
    assert copies(remote(bucket)) == first
    index = load_index(remote(bucket))
    read_image(index, index.splits["test"].keys[0])  # promote does this
    assert len(copies(remote(bucket))) == len(first) + 1


def test_what_was_cut_off_or_has_changed_is_fetched_again(images: Path, bucket: str, store: ObjectStore) -> None:
    store.upload(images, bucket, "some/images")
    before = load_index(remote(bucket))
    half = Path(before.root, "train/dog/00.png")
    half.write_bytes(half.read_bytes()[:20])
    assert load_index(remote(bucket)).digest == before.digest
    shutil.copy(images / "train/cat/00.png", images / "val/dog/00.png")
    other = images / "val/dog/00.png"
    store.client().upload_file(str(other), bucket, "some/images/val/dog/00.png")
    os.utime(Path(before.root, "val/dog/00.png"), ns=(0, 0))  # moto counts whole seconds
    after = load_index(remote(bucket))
    assert after.digest != before.digest
    assert after.digest == load_index(DataSpec(source="folder", path=str(images))).digest


def test_a_manifest_in_a_bucket(images: Path, bucket: str, store: ObjectStore) -> None:
    rows = [f"train/{label}/{number:02d}.png,{label}" for label in ("cat", "dog") for number in range(4)]
    (images / "list.csv").write_text("\n".join(["path,label", *rows]))
    split = replace(DataSpec(source="manifest").split, val=0.25, test=0.0)
    store.upload(images, bucket, "m")
    here = load_index(DataSpec(source="manifest", path=str(images / "list.csv"), split=split))
    there = load_index(DataSpec(source="manifest", path=f"s3://{bucket}/m/list.csv", split=split))
    assert there.digest == here.digest
    (images / "list.csv").write_text("\n".join(["path,label", *rows, "train/cat/99.png,cat"]))
    store.client().upload_file(str(images / "list.csv"), bucket, "m/broken.csv")
    with pytest.raises(DataError, match=r"line 10: train/cat/99\.png does not exist beside the manifest"):
        load_index(DataSpec(source="manifest", path=f"s3://{bucket}/m/broken.csv", split=split))
    with pytest.raises(DataError, match=r"must be a file: s3://.*/gone\.csv does not exist"):
        load_index(DataSpec(source="manifest", path=f"s3://{bucket}/m/gone.csv", split=split))


def test_what_is_not_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=rf"must be a folder: s3://{bucket}/some/images does not exist"):
        load_index(remote(bucket))
    assert remote_problem(f"s3://{bucket}/gone") == f"s3://{bucket}/gone does not exist"
    assert data_problem(f"s3://{bucket}/gone") == f"s3://{bucket}/gone does not exist"  # the doctor's, on each node
    assert remote_problem(f"s3://{bucket}") == data_problem(f"s3://{bucket}") == ""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=rf"s3://{bucket}/away: cannot be listed: ") as told:
        RemoteFolder.open(f"s3://{bucket}/away")
    assert SECRET not in str(told.value) and "\n" not in str(told.value)


def test_an_object_that_goes_away_is_named(images: Path, bucket: str, store: ObjectStore) -> None:
    store.upload(images, bucket, "some/images")
    reader = RemoteFolder.open(f"s3://{bucket}/some/images").reader()
    store.client().delete_object(Bucket=bucket, Key="some/images/train/cat/00.png")
    with pytest.raises(DataError, match=rf"1 of 2 images .*\n.*s3://{bucket}/some/images/train/cat/00\.png: cannot be"):
        reader.digests(("train/cat/00.png", "train/cat/01.png"))


def test_a_connection_that_breaks_is_tried_again(
    images: Path, bucket: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload(images, bucket, "some/images")
    monkeypatch.setattr("tlsearch.data.fetch.bucket_images._FIRST_PAUSE_S", 0.0)
    real, broken = RemoteReader._download, [OSError("cut"), OSError("cut"), OSError("cut")]

    def download(self: RemoteReader, *arguments: object) -> None:
        if broken:
            raise broken.pop()
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RemoteReader, "_download", download)
    reader = RemoteFolder.open(f"s3://{bucket}/some/images").reader()
    assert reader.read("val/cat/00.png") == (images / "val/cat/00.png").read_bytes()
    broken += [OSError("cut")] * 4
    with pytest.raises(DataError, match="cannot be read: cut"):
        reader.read("val/cat/01.png")
