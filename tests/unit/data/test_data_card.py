"""The data card: counts, sizes, modes, corrupt files, and pictures that stand twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tlsearch.core.codec import to_plain
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import DataCard, data_card, load_index


def plain(found: DataCard) -> dict:
    return json.loads(json.dumps(to_plain(found)))


def card(path: Path, *, scan: bool = True, include_test: bool = True) -> dict:
    index = load_index(DataSpec(source="folder", path=str(path)))
    return plain(data_card(index, scan=scan, include_test=include_test))


def pairs(found: list[dict], root: Path) -> list[tuple[str, str, str]]:
    paths = [[os.path.relpath(pair[which]["path"], root) for which in ("first", "second")] for pair in found]
    return [(pair["kind"], *two) for pair, two in zip(found, paths, strict=True)]


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Soft blobs, another picture for each seed."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path) -> Path:
    """train/ (6 each), val/ (3 each) and test/ (2 each) with the classes a and b, all different."""
    seed = 0
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("a", "b"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                picture(seed := seed + 1).save(tmp_path / "images" / split / name / f"{i}.png")
    return tmp_path / "images"


def test_counts_need_no_image(ready_folder):
    for path in ready_folder.rglob("a/0[0-1].png"):
        path.write_bytes(b"no image")
    for path in (ready_folder / "train" / "b").glob("0[0-2].png"):
        path.unlink()
    found = card(ready_folder, scan=False)
    assert found["classes"] == ["a", "b"]
    assert found["splits"]["train"] == {"images": 9, "per_class": {"a": 6, "b": 3}}
    assert found["splits"]["test"] == {"images": 4, "per_class": {"a": 2, "b": 2}}
    assert found["imbalance"] == 2.0
    assert found["digest"] == load_index(DataSpec(source="folder", path=str(ready_folder))).digest
    assert (found["scanned"], found["width"], found["modes"], found["corrupt"]) == ([], None, {}, [])


def test_sizes_and_modes(pictures):
    train = pictures / "train"
    picture(50, (100, 30)).save(train / "a/0.png")
    picture(51, (20, 300)).convert("L").save(train / "a/1.png")
    turned = picture(52, (500, 70))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(train / "a/2.jpg", exif=exif)
    picture(53).convert("CMYK").save(train / "a/3.jpg")
    picture(54).quantize(8).save(train / "a/4.gif")
    for name in ("2.png", "3.png", "4.png"):
        (train / "a" / name).unlink()
    found = card(pictures)
    assert found["width"] == {"min": 20, "median": 64.0, "max": 100}
    assert found["height"] == {"min": 30, "median": 64.0, "max": 500}
    assert found["modes"] == {"RGB": 19, "L": 1, "CMYK": 1, "P": 1}
    assert found["scanned"] == ["train", "val", "test"]


def test_test_images_are_opened_only_when_asked(pictures):
    shutil.copy(pictures / "train/a/0.png", pictures / "test/a/0.png")
    (pictures / "test/b/1.png").write_bytes(b"")
    assert pairs(card(pictures)["leaks"], pictures) == [("exact", "train/a/0.png", "test/a/0.png")]
    for path in (pictures / "test").rglob("*.png"):
        path.chmod(0)
        path.rename(path.with_suffix(".PNG"))
        os.symlink("nowhere", path.with_suffix(".bmp"))
        path.with_suffix(".PNG").unlink()  # nothing is left that could be read
    found = card(pictures, include_test=False)
    assert (found["leaks"], found["corrupt"], found["scanned"]) == ([], [], ["train", "val"])


def test_corrupt_files_are_listed_with_their_reasons(pictures):
    whole = (pictures / "train/a/0.png").read_bytes()
    (pictures / "train/a/0.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "val/b/1.png").write_bytes(b"<html>not found</html>")
    (pictures / "test/b/0.png").write_bytes(b"")
    found = card(pictures)["corrupt"]
    assert [(one["path"], one["split"], one["label"]) for one in found] == [
        (str(pictures / "train/a/0.png"), "train", "a"),
        (str(pictures / "val/b/1.png"), "val", "b"),
        (str(pictures / "test/b/0.png"), "test", "b"),
    ]
    assert found[0]["error"].startswith("the image is corrupt")
    assert found[1]["error"].startswith("is not an image of a known format")
    assert found[2]["error"] == "the file is empty"


def test_different_pictures_are_no_duplicates(pictures):
    found = card(pictures)
    assert (found["leaks"], found["duplicates"]) == ([], [])


def test_exact_doubles_within_and_across_splits(pictures):
    for copy in ("train/a/9.png", "train/b/9.png", "val/a/9.png", "test/b/9.png"):
        shutil.copy(pictures / "train/a/0.png", pictures / copy)
    shutil.copy(pictures / "val/b/0.png", pictures / "val/b/9.png")
    found = card(pictures)
    assert pairs(found["duplicates"], pictures) == [
        ("exact", "train/a/0.png", "train/a/9.png"),
        ("exact", "train/a/0.png", "train/b/9.png"),
        ("exact", "val/b/0.png", "val/b/9.png"),
    ]
    assert pairs(found["leaks"], pictures) == [
        ("exact", "train/a/0.png", "val/a/9.png"),
        ("exact", "train/a/0.png", "test/b/9.png"),
    ]
    assert found["leaks"][1]["second"] == {"path": str(pictures / "test/b/9.png"), "split": "test", "label": "b"}


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 48)),
        lambda image: image.resize((200, 220)),
        lambda image: image.point(lambda value: min(255, round(value * 1.04))),
        lambda image: image.quantize(128),
        lambda image: Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 255))),
    ],
    ids=["smaller", "larger", "brighter", "palette", "alpha"],
)
def test_the_same_picture_in_another_form(pictures, change):
    with Image.open(pictures / "train/b/2.png") as image:
        change(image).save(pictures / "val/a/9.png")
    assert pairs(card(pictures)["leaks"], pictures) == [("near", "train/b/2.png", "val/a/9.png")]


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_the_same_picture_as_a_jpeg(pictures, quality):
    with Image.open(pictures / "train/b/2.png") as image:
        image.resize((1200, 1200)).save(pictures / "test/b/9.jpg", quality=quality)
    assert pairs(card(pictures)["leaks"], pictures) == [("near", "train/b/2.png", "test/b/9.jpg")]


@pytest.mark.parametrize(
    "change",
    [
        ImageOps.mirror,
        lambda image: ImageOps.autocontrast(image.convert("L")),
        lambda image: Image.merge("RGB", image.split()[::-1]),
        lambda image: image.crop((10, 10, 54, 54)),
        lambda image: Image.composite(Image.new("RGB", image.size, "black"), image, mask(image.size)),
    ],
    ids=["mirrored", "grey", "other colours", "cropped", "a black spot"],
)
def test_what_counts_as_another_picture(pictures, change):
    with Image.open(pictures / "train/b/2.png") as image:
        change(image).save(pictures / "val/a/9.png")
    assert card(pictures)["leaks"] == []


def mask(size: tuple[int, int]) -> Image.Image:
    spot = Image.new("L", size, 0)
    spot.paste(255, (28, 20, 36, 32))
    return spot


def test_plain_pictures_count_by_their_bytes_alone(pictures):
    for i, name in enumerate(("train/a/8.png", "train/b/8.png", "val/a/8.png")):
        Image.new("RGB", (64, 64), (200 + i, 220, 240)).save(pictures / name)
    assert card(pictures)["leaks"] == []
    shutil.copy(pictures / "train/a/8.png", pictures / "val/a/9.png")
    assert pairs(card(pictures)["leaks"], pictures) == [("exact", "train/a/8.png", "val/a/9.png")]


def test_many_doubles_of_one_picture(tmp_path):
    for number in range(300):
        folder = tmp_path / ("val" if number % 3 == 2 else "train") / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(picture(1)).copy()
        pixels[0, 0] = number % 256, number // 256, 0
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    found = card(tmp_path)
    assert len(found["leaks"]) == 100
    assert len({pair["second"]["path"] for pair in found["leaks"]}) == 100
    assert len(found["duplicates"]) == 298


@pytest.mark.slow
def test_a_leak_planted_in_emoji_is_found(emoji_path, tmp_path):
    """One image copied from train to val, one encoded anew; the set itself has one pair, two imps."""
    root = tmp_path / "emoji"
    shutil.copytree(emoji_path, root)
    shown = pairs(card(root)["leaks"], root)
    assert shown == [("near", "train/face/1f608.google.png", "val/face/1f47f.google.png")]
    copied, encoded = "train/animal/1f406.google.png", sorted((root / "train/tool").iterdir())[3]
    shutil.copy(root / copied, root / "val/animal/copy.png")
    ground = Image.new("RGBA", (64, 64), "white")
    with Image.open(encoded) as image:
        drawing = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    drawing.resize((50, 50)).save(root / "val/tool/again.jpg", quality=70)
    found = card(root)
    planted = [
        ("exact", copied, "val/animal/copy.png"),
        ("near", str(encoded.relative_to(root)), "val/tool/again.jpg"),
    ]
    assert sorted(pairs(found["leaks"], root)) == sorted(planted + shown)
    assert found["duplicates"] == []


def test_rows_have_cards_too():
    index = load_index(DataSpec(source="digits", split=SplitSpec(val=0.2, test=0.1)))
    found = plain(data_card(index, scan=True, include_test=True))
    assert found["width"] == {"min": 8, "median": 8.0, "max": 8}
    assert found["modes"] == {"L": 1797}
    assert (found["leaks"], found["corrupt"]) == ([], [])


def test_listing_and_scanning_need_no_torch(pictures):
    code = f"""
import sys
from tlsearch.data import DataCard, data_card, load_index
from tlsearch.core.codec import to_plain
from tlsearch.core.types import DataSpec
data_card(load_index(DataSpec(source="folder", path={str(pictures)!r})), scan=True)
assert "torch" not in sys.modules and "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
