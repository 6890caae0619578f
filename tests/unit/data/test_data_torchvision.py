"""torchvision's sets through one adapter: made here in the layouts that the classes read, nothing fetched."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import os
import pickle
import re
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VisionDataset

from tlsearch.core.errors import DataError
from tlsearch.core.types import CacheSpec, DataSpec, SplitSpec, TransformSpec
from tlsearch.data import load_index, open_pixels, read_image
from tlsearch.data.libraries.torchvision_sets_table import READABLE, REFUSED
from tlsearch.data.sources.listing import FileReader

NONE_READ = FileReader(root="")


def load(name: str | None, path: Path | None = None, **spec: Any):
    return load_index(DataSpec(source="torchvision", name=name, path=str(path) if path else None, **spec))


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    magic = bytes([0, 0, 8, array.ndim])
    path.write_bytes(magic + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes())


def write_mnist(root: Path, prefixes: tuple[str, str], folder: str, labels: list[int]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    images = {}
    for prefix, count in zip(prefixes, (len(labels), len(labels) // 2), strict=True):
        images[prefix] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", images[prefix])
        write_idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", np.array(labels[:count], np.uint8))
    return images


@pytest.fixture
def pets(tmp_path, write_images) -> Path:
    """A cat and a dog in the layout of OxfordIIITPet: 12 trainval, 4 test."""
    base = tmp_path / "oxford-iiit-pet"
    (base / "annotations" / "trimaps").mkdir(parents=True)
    names = [f"{pet}_{i}" for i in range(8) for pet in ("Bengal", "pug")]
    for name, path in zip(names, write_images(base / "images", 16), strict=True):
        path.unlink()
        Image.effect_noise((9, 7), 50 + names.index(name)).convert("RGB").save(base / "images" / f"{name}.jpg")
    for split, part in (("trainval", names[:12]), ("test", names[12:])):
        lines = [f"{name} {1 + (name[0] == 'p')} {1 + (name[0] == 'p')} 1" for name in part]
        (base / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_set_with_train_and_test_in_memory(tmp_path):
    images = write_mnist(tmp_path, ("train", "t10k"), "MNIST", [0, 1, 2, 1, 0, 2] * 5)
    index = load("MNIST", tmp_path, split=SplitSpec(val=0.2))
    assert index.classes == ("0 - zero", "1 - one", "2 - two")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 24, "val": 6, "test": 15}
    assert index.splits["test"].keys[:2] == ("test/00", "test/04")
    assert index.splits["test"].digests == ()
    image = read_image(index, "train/07")
    assert np.array_equal(np.asarray(image)[..., 1], images["train"][7])
    assert index.reader.name("train/07") == "torchvision's MNIST train row 7"
    assert load("MNIST", tmp_path, split=SplitSpec(val=0.2)) == index
    pixels = open_pixels(index, "val", TransformSpec(resize_size=28, crop_size=28), CacheSpec())
    row = int(index.splits["val"].keys[0].split("/")[1])
    assert np.array_equal(pixels.images[0, 0].numpy(), images["train"][row])


def test_the_digest_follows_the_images_of_train_alone(tmp_path):
    write_mnist(tmp_path, ("train", "t10k"), "MNIST", [0, 1] * 10)
    first = load("MNIST", tmp_path).digest
    write_idx(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8))
    assert load("MNIST", tmp_path).digest == first
    write_idx(tmp_path / "MNIST/raw/train-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
    assert load("MNIST", tmp_path).digest != first


def test_a_split_that_is_a_choice_of_classes(tmp_path):
    prefixes = ("emnist-letters-train", "emnist-letters-test")
    write_mnist(tmp_path, prefixes, "EMNIST", [1, 2, 26, 3] * 8)
    index = (
        load("EMNIST", tmp_path, split="letters")
        if False
        else load_index(DataSpec(source="torchvision", name="EMNIST", path=str(tmp_path), options={"split": "letters"}))
    )
    assert index.classes == ("a", "b", "c", "z")  # not "N/A" and those without an image
    assert list(index.splits) == ["train", "val", "test"]
    with pytest.raises(DataError, match=r"EMNIST .*split"):
        load("EMNIST", tmp_path)


def test_a_class_that_only_test_has(tmp_path):
    write_mnist(tmp_path, ("train", "t10k"), "MNIST", [0, 1] * 10)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.full(10, 7, np.uint8))
    with pytest.raises(DataError, match="MNIST: test has images of 1 classes that train has none of: '7 - seven'"):
        load("MNIST", tmp_path)


def test_a_set_of_files(pets):
    index = load("OxfordIIITPet", pets)
    assert index.classes == ("Bengal", "Pug")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 10, "val": 2, "test": 4}
    assert index.splits["test"].keys[0] == "oxford-iiit-pet/images/Bengal_6.jpg"
    assert index.root == str(pets)
    key = index.splits["train"].keys[0]
    assert index.reader.read(key) == (pets / key).read_bytes()


def test_test_files_stay_closed(pets):
    first = load("OxfordIIITPet", pets).digest
    (pets / "oxford-iiit-pet/images/pug_7.jpg").write_bytes(b"")
    assert load("OxfordIIITPet", pets).digest == first
    (pets / "oxford-iiit-pet/images/pug_0.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        load("OxfordIIITPet", pets)


def test_a_set_without_splits_is_split(tmp_path, write_images):
    for name in ("Forest", "River", "Highway"):
        write_images(tmp_path / "eurosat" / "2750" / name, 10)
    index = load("EuroSAT", tmp_path, split=SplitSpec(val=0.2, test=0.3))
    assert index.classes == ("Forest", "Highway", "River")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 15, "val": 6, "test": 9}
    assert index.splits["train"].keys[0].startswith("eurosat/2750/Forest/")


def test_a_set_with_three_splits(tmp_path, write_images, caplog):
    for part, count in (("train", 4), ("valid", 2), ("test", 3)):
        for name in ("AD", "CH"):
            write_images(tmp_path / "country211" / part / name, count)
    index = load("Country211", tmp_path)
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 8, "val": 4, "test": 6}
    for path in (tmp_path / "country211" / "valid" / "CH").iterdir():
        path.rename(tmp_path / "country211" / "valid" / "AD" / f"x{path.name}")
    (tmp_path / "country211" / "valid" / "CH" / "0.txt").write_text("")
    with pytest.raises(DataError, match="Country211 cannot be opened from .*Found no valid file"):
        load("Country211", tmp_path)


def test_a_set_that_makes_its_images(tmp_path):
    state = torch.get_rng_state()
    index = load("FakeData", options={"size": 40, "num_classes": 3}, split=SplitSpec(val=0.2, test=0.2))
    assert torch.equal(torch.get_rng_state(), state)
    assert index.classes == ("0", "1", "2")
    assert sum(len(split) for split in index.splits.values()) == 40
    assert set(index.splits) == {"train", "val", "test"}
    assert read_image(index, "all/03").size == (224, 224)
    assert index.reader.read("all/03") == index.reader.read("all/03")
    assert load("FakeData", options={"size": 40, "num_classes": 3, "random_offset": 1}).digest != index.digest


def test_a_set_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(DataError) as caught:
        load("CIFAR10", tmp_path)
    assert str(caught.value) == (
        f"torchvision's CIFAR10 is not in {tmp_path}: set data.download to true to fetch it, "
        "or name the folder that has it in data.path"
    )
    assert os.listdir(tmp_path) == []
    with pytest.raises(DataError, match=f"Flowers102 is not in {tmp_path}/cache/datasets: set data.download"):
        load("Flowers102")


def test_download_is_asked_for_once(tmp_path, monkeypatch):
    from torchvision import datasets

    calls = []

    def download(self) -> None:
        calls.append(self.train)
        prefix = "train" if self.train else "t10k"
        if not (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").exists():
            assert prefix == "train"
            write_mnist(tmp_path, ("train", "t10k"), "MNIST", [0, 1] * 10)

    monkeypatch.setattr(datasets.MNIST, "download", download)
    index = load("MNIST", tmp_path, download=True)
    assert calls == [True]
    assert load("MNIST", tmp_path, download=True) == load("MNIST", tmp_path) == index
    assert calls == [True]


def test_a_download_that_fails_is_said(tmp_path, monkeypatch):
    from torchvision import datasets

    def download(self) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", download)
    with pytest.raises(DataError, match=f"MNIST could not be downloaded into {tmp_path}: no route to host"):
        load("MNIST", tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "options", "want"),
    [
        (None, {}, "data.name must name a set"),
        ("CIFAR1O", {}, r"must be a set of torchvision.datasets, not 'CIFAR1O'; did you mean CIFAR10\?"),
        ("folder", {}, "must be a set of torchvision.datasets, not 'folder'"),
        ("FakeData", {"train": True}, "data.options must leave 'train' to tlsearch"),
        ("Flowers102", {"split": "test"}, "data.options must leave 'split' to tlsearch"),
        ("OxfordIIITPet", {"target_types": "binary-category"}, "must leave 'target_types'"),
        ("FakeData", {"sizes": 3}, "torchvision's FakeData has no argument 'sizes'"),
    ],
)
def test_faults_of_name_and_options(name, options, want):
    with pytest.raises(DataError, match=want):
        load_index(DataSpec(source="torchvision", name=name, options=options))


def test_a_set_that_is_not_for_classification(tmp_path, monkeypatch):
    from torchvision import datasets

    write_mnist(tmp_path, ("train", "t10k"), "MNIST", [0, 1] * 10)
    monkeypatch.setattr(datasets.MNIST, "__getitem__", lambda self, row: (Image.new("L", (8, 8)), "a caption"))
    with pytest.raises(DataError, match="MNIST row 0: an item must be an image and a label, not Image, str"):
        load("MNIST", tmp_path)
    with pytest.raises(DataError, match="group_by is for folders"):
        load("FakeData", split=SplitSpec(group_by="x"))


def test_labels_that_disagree_with_the_items_are_not_believed(tmp_path, monkeypatch, caplog):
    from torchvision import datasets

    write_mnist(tmp_path, ("train", "t10k"), "MNIST", [0, 1] * 10)
    real = datasets.MNIST.__getitem__

    def turned(self, row):
        image, label = real(self, row)
        return image, 1 - label

    plain = load("MNIST", tmp_path)
    monkeypatch.setattr(datasets.MNIST, "__getitem__", turned)
    index = load("MNIST", tmp_path)
    assert index.splits["test"].keys == plain.splits["test"].keys[5:] + plain.splits["test"].keys[:5]


def test_rows_without_a_label_are_left_out():
    from tlsearch.data.libraries.library_rows import label_parts

    found = label_parts(
        "x",
        ["crane", "dog", "crane"],
        {"train": [0, 1, -1, 2], "test": [-1, -1]},
        lambda part, row: f"{part}/{row}",
        reader=NONE_READ,
    )
    assert found.classes == ("crane (0)", "dog", "crane (2)")
    assert [(item.key, item.label) for item in found.items["all"]] == [("train/0", 0), ("train/1", 1), ("train/3", 2)]
    assert [left.keys for left in found.left_out] == [("train/2", "test/0", "test/1")]
    found = label_parts("x", ["a", "b"], {"train": [0, 1], "val": [1]}, "{}/{}".format, reader=NONE_READ)
    assert found.notes == ("val has no image of 1 classes: 'a'",)
    with pytest.raises(DataError, match="at least 2 classes"):
        label_parts("x", ["a", "b"], {"train": [1, 1]}, "{}/{}".format, reader=NONE_READ)


def test_unicode_forms_of_a_name_are_one_class():
    from tlsearch.data.libraries.library_rows import label_parts

    names = ["dog", "caf\u00e9", "cafe\u0301"]
    found = label_parts("x", names, {"all": [0, 1, 2, 2]}, "{}/{}".format, reader=NONE_READ)
    assert found.classes == ("dog", "caf\u00e9") == found.spellings
    assert [item.label for item in found.items["all"]] == [0, 1, 1, 1]
    alone = label_parts("x", ["dog", "cafe\u0301"], {"all": [0, 1]}, "{}/{}".format, reader=NONE_READ)
    assert (alone.classes, alone.spellings) == (("dog", "caf\u00e9"), ("dog", "cafe\u0301"))


def test_what_imagefolder_does_not_read_is_said(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / name, 4)
    (tmp_path / "a" / "00.png").rename(tmp_path / "a" / "00.jfif")
    (tmp_path / "a" / "notes.txt").write_text("x")
    index = load("ImageFolder", tmp_path)
    assert {left.reason: left.keys for left in index.left_out} == {
        "images that the library does not read": ("a/00.jfif",),
        "labels, tables and text": ("a/notes.txt",),
    }


# --- what a set's code may do ---------------------------------------------------------------


def _all_sets() -> dict[str, type]:
    from torchvision import datasets

    found = {name: getattr(datasets, name) for name in datasets.__all__}
    return {name: one for name, one in found.items() if inspect.isclass(one) and issubclass(one, VisionDataset)}


def test_every_set_of_torchvision_is_read_or_refused_by_name():
    """A new set of torchvision is refused by itself; this test says that its code waits for a review."""
    assert sorted([*READABLE, *REFUSED]) == sorted(_all_sets()), "review the new sets, and put them in a table"


@pytest.mark.parametrize("name", sorted(_all_sets()))
def test_the_code_of_each_set_that_is_read_loads_no_pickle(name):
    """Names of what runs code, in the modules of sets that are read: each is one that the table speaks of."""
    found = re.findall(
        r"pickle\.\w+\([^)]*\)|torch\.load\([^\n]*|np\.load\([^\n]*|\b(?:eval|exec|__import__)\(|import_module|subprocess"
        r"|os\.system|yaml\.|joblib|h5py|lmdb|google_drive|\bpd\.read",
        Path(inspect.getsourcefile(_all_sets()[name])).read_text(),
    )
    if name in REFUSED:
        with pytest.raises(DataError, match=f"torchvision's {name} is not read: .*data.source folder"):
            load(name, Path("/nowhere"))
        return
    calls = {
        "cifar": {'pickle.load(f, encoding="latin1")', 'pickle.load(infile, encoding="latin1")'},  # see load_arrays
        "mnist": {"torch.load(os.path.join(self.processed_folder, data_file), weights_only=True)"},
        "imagenet": {"torch.load(file, weights_only=True)"},
    }
    assert set(found) == calls.get(_all_sets()[name].__module__.rpartition(".")[2], set())


def test_a_set_that_nobody_has_reviewed_is_refused(monkeypatch):
    from torchvision import datasets

    class NewSet(datasets.VisionDataset):
        def __init__(self, root: str) -> None:
            raise AssertionError("not to be opened")

    monkeypatch.setattr(datasets, "NewSet", NewSet, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "NewSet"))
    with pytest.raises(DataError, match=r"NewSet is not read: its code in torchvision \d.* was not reviewed"):
        load("NewSet", Path("/nowhere"))


class Program:
    """Runs where a pickle of it is loaded."""

    def __reduce__(self) -> Any:
        return Program.run, ()

    @staticmethod
    def run() -> None:
        raise AssertionError("a pickle has run")


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, **entry: Any) -> None:
    """CIFAR-10 in small, with the MD5 that torchvision then asks for."""
    from torchvision import datasets

    folder, random = root / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir()

    def write(name: str, content: Any) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(num: int) -> dict[str, Any]:
        data = random.integers(0, 256, (num, 3072), dtype=np.uint8)
        return {"data": data, "labels": [i % 2 for i in range(num)], **entry}

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [write("data_batch_1", batch(20))])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write("test_batch", batch(4))])
    name, md5 = write("batches.meta", {"label_names": ["plane", "car"]})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})


def test_cifar_is_read_by_an_unpickler_of_arrays(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    index = load("CIFAR10", tmp_path)
    assert index.classes == ("plane", "car")
    assert {name: len(split) for name, split in index.splits.items()} == {"train": 16, "val": 4, "test": 4}
    from torchvision.datasets import cifar

    assert cifar.pickle is pickle, "torchvision is left as it was"


@pytest.mark.parametrize("program", [Program(), print, np.ufunc, np.load])
def test_a_cifar_file_that_would_run_a_program_is_refused(tmp_path, monkeypatch, program):
    write_cifar(tmp_path, monkeypatch, more=program)
    with pytest.raises(DataError, match="CIFAR10 cannot be opened from .*: the file would make an object of "):
        load("CIFAR10", tmp_path)


def test_torchs_files_of_old_versions_run_no_program(tmp_path):
    for name in ("training.pt", "test.pt"):
        (tmp_path / "MNIST" / "processed").mkdir(parents=True, exist_ok=True)
        torch.save((torch.zeros(2, 28, 28), Program()), tmp_path / "MNIST" / "processed" / name)
    with pytest.raises(DataError, match="MNIST cannot be opened"):
        load("MNIST", tmp_path)
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    torch.save(({"a": Program()}, []), tmp_path / "meta.bin")
    with pytest.raises(DataError, match="ImageNet cannot be opened"):
        load("ImageNet", tmp_path)


def test_imagenet_is_never_unpacked(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="ImageNet is not unpacked: .* has no meta.bin, val"):
        load("ImageNet", tmp_path)


@pytest.mark.parametrize("name", sorted(READABLE.keys() - {"FakeData"}))
def test_nothing_is_fetched_that_was_not_asked_for(tmp_path, name, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)  # would fail if it were called
    monkeypatch.setattr("socket.socket.connect", None)
    options = {"split": "letters"} if name == "EMNIST" else {}
    with pytest.raises(DataError, match=f"torchvision's {name} (is not in|cannot be opened|is not unpacked|refuses)"):
        load(name, tmp_path, options=options)


@pytest.mark.parametrize(
    ("name", "options", "want"),
    [
        ("FakeData", {"size": 10**12}, "size of torchvision's FakeData may be 4 to 100000, not 1000000000000"),
        ("FakeData", {"size": 0}, "may be 4 to 100000, not 0"),
        ("FakeData", {"size": -1}, "may be 4 to 100000, not -1"),
        ("FakeData", {"size": 1e3}, "may be 4 to 100000, not 1000.0"),
        ("FakeData", {"size": True}, "may be 4 to 100000, not True"),
        ("FakeData", {"size": float("nan")}, "may be 4 to 100000, not nan"),
        ("FakeData", {"num_classes": 10**12}, "num_classes .* may be 2 to 10000"),
        ("FakeData", {"random_offset": 2**63}, "random_offset .* may be 0 to 4294967295"),
        ("DTD", {"partition": "../../x"}, "partition .* may be 1 to 10, not '../../x'"),
        ("STL10", {"folds": 10**12}, "folds .* may be 0 to 9"),
        ("INaturalist", {"version": "../x"}, "version .* may be 2017, "),
        ("ImageFolder", {"is_valid_file": "x"}, "must leave 'is_valid_file' to tlsearch"),
    ],
)
def test_options_have_bounds(name, options, want, tmp_path):
    with pytest.raises(DataError, match=want):
        load(name, tmp_path, options=options)


def test_every_option_that_a_set_may_have_is_its_own():
    for name, readable in READABLE.items():
        parameters = {p for one in _all_sets()[name].__mro__ for p in inspect.signature(one.__init__).parameters}
        assert readable.options.keys() <= parameters, name


# --- downloads, from a server on this machine ------------------------------------------------


def _gz(array: np.ndarray) -> bytes:
    path_free = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(path_free + array.tobytes())


@pytest.fixture
def mnist_site(site, monkeypatch):
    """MNIST in small, at a mirror on this machine."""
    from torchvision import datasets

    resources = []
    for prefix, count in (("train", 20), ("t10k", 10)):
        for kind, array in (
            ("images-idx3", np.zeros((count, 28, 28), np.uint8)),
            ("labels-idx1", np.array([i % 2 for i in range(count)], np.uint8)),
        ):
            name = f"{prefix}-{kind}-ubyte.gz"
            site.files[f"/{name}"] = _gz(array)
            resources.append((name, hashlib.md5(site.files[f"/{name}"]).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"{site.address}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return site


def test_a_set_is_fetched_by_our_fetcher(mnist_site, tmp_path):
    assert load("MNIST", tmp_path, download=True).classes == ("0 - zero", "1 - one")
    assert len(mnist_site.asked) == 4
    assert load("MNIST", tmp_path).classes == ("0 - zero", "1 - one")


def test_a_page_in_place_of_a_file_of_a_set_is_not_kept(mnist_site, tmp_path):
    mnist_site.files["/train-images-idx3-ubyte.gz"] = b"<html>Sign in</html>"
    with pytest.raises(DataError, match="MNIST could not be downloaded .* is not the file of the data set: it begins"):
        load("MNIST", tmp_path, download=True)
    assert not list((tmp_path / "MNIST" / "raw").glob("*.gz"))


def test_an_archive_stays_inside_its_folder(site, tmp_path, monkeypatch):
    from torchvision import datasets

    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../escaped.txt")
        archive.addfile(member)
    site.files["/fgvc.tar.gz"] = file.getvalue()
    monkeypatch.setattr(datasets.FGVCAircraft, "_URL", f"{site.address}/fgvc.tar.gz")
    with pytest.raises(DataError, match="could not be downloaded .*outside the destination"):
        load("FGVCAircraft", tmp_path / "a" / "b", download=True)
    assert not list(tmp_path.rglob("escaped.txt"))


# --- files that a set names ------------------------------------------------------------------


def _food(root: Path, *, paths: list[str]) -> None:
    (root / "food-101" / "meta").mkdir(parents=True)
    (root / "food-101" / "images").mkdir()
    for part in ("train", "test"):
        (root / "food-101" / "meta" / f"{part}.json").write_text(json.dumps({"a": paths, "b": paths}))


@pytest.mark.parametrize("path", ["../../../etc/hostname", "../../../x"])
def test_a_list_that_leads_outside_is_refused(tmp_path, path):
    _food(tmp_path, paths=[path])
    with pytest.raises(DataError, match=f"Food101: names a file outside of {tmp_path}: "):
        load("Food101", tmp_path)


@pytest.mark.timeout(60)
def test_what_is_not_a_regular_file_is_not_waited_for(pets):
    image = pets / "oxford-iiit-pet/images/Bengal_0.jpg"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(DataError, match="it is a named pipe, not a file"):
        load("OxfordIIITPet", pets)
    image.unlink()
    image.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a device, not a file"):
        load("OxfordIIITPet", pets)
    lines = pets / "oxford-iiit-pet/annotations/trainval.txt"
    lines.unlink()
    os.mkfifo(lines)
    with pytest.raises(DataError, match="it is a named pipe, not a file"):
        load("OxfordIIITPet", pets)
    lines.unlink()
    with lines.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match="it has 1,099,511,627,776 bytes, more than"):
        load("OxfordIIITPet", pets)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", sorted(name for name, one in READABLE.items() if one.follows))
def test_links_that_lead_round_in_circles_are_refused_before_a_set_follows_them(tmp_path, write_images, name):
    for folder in ("a", "b"):
        write_images(tmp_path / folder, 2)
        for link in ("x", "y"):
            (tmp_path / folder / link).symlink_to(tmp_path, target_is_directory=True)
    for needed in READABLE[name].needs:
        (tmp_path / needed).mkdir(exist_ok=True)
    with pytest.raises(DataError, match="links between folders that lead round in circles: 'a/x/'"):
        load(name, tmp_path)


def test_every_set_that_follows_links_is_known():
    for name in READABLE:
        code = inspect.getsource(inspect.getmodule(_all_sets()[name]))
        follows = "make_dataset(" in code or "ImageFolder" in code
        assert READABLE[name].follows == (follows and name != "DatasetFolder"), name
