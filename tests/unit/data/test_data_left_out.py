"""Nothing in a data folder is dropped without a line in the card."""

from __future__ import annotations

import os
import socket
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlsearch.cli.tables.data_tables import data_lines
from tlsearch.core.errors import DataError
from tlsearch.core.types import DataSpec, SplitSpec
from tlsearch.data import data_card, load_index, read_image, require_ready
from tlsearch.data.inspect.data_card import told_by_content
from tlsearch.data.sources.left_out import JUNK

AS_IMAGES = {
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".avif": "AVIF",
    ".pgm": "PPM",
    ".pnm": "PPM",
    ".heic": "PNG",  # of another format than it says
    ".JPG": "WEBP",
}


def encoded(kind: str = "PNG") -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def load(path: Path):
    return load_index(DataSpec(source="folder", path=str(path)))


def left_out(path: Path) -> dict[str, list[str]]:
    """By reason, as ``check`` sees it."""
    return {one.reason: list(one.keys) for one in told_by_content(load(path))}


@pytest.fixture
def root(tmp_path, write_images) -> Path:
    for name in ("cat", "dog"):
        write_images(tmp_path / "set" / name, 6)
    return tmp_path / "set"


def test_images_of_all_common_suffixes_are_read(root):
    for suffix, kind in AS_IMAGES.items():
        (root / "cat" / f"x{suffix}").write_bytes(encoded(kind))
    index = load(root)
    keys = {key for split in index.splits.values() for key in split.keys}
    assert {f"cat/x{suffix}" for suffix in AS_IMAGES} <= keys
    assert all(read_image(index, f"cat/x{suffix}").size == (12, 12) for suffix in AS_IMAGES)
    assert left_out(root) == {}


@pytest.mark.parametrize("name", ["x", "x.txt", "photo.jpg?w=300", "x.dat", "x.json", "x.part", "a. b"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"])
def test_images_by_content_alone_are_named_by_check(root, name, kind):
    before = load(root)
    (root / "cat" / name).write_bytes(encoded(kind))
    assert load(root) == before
    assert left_out(root) == {
        "images by their content, but not by their names (give them the suffix of an image)": [f"cat/{name} ({kind})"]
    }


def test_names_of_file_managers_are_counted(root):
    for name in (".DS_Store", "._00.png", "Thumbs.db", "desktop.ini", "DESKTOP.INI", "~$list.xlsx", ".nfs0001"):
        (root / "cat" / name).write_bytes(encoded())
    for name in ("@eaDir", "#recycle", "__MACOSX", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN", "@Recycle"):
        for folder in (root / name, root / "cat" / name):
            folder.mkdir()
            (folder / "00.png").write_bytes(encoded())
    index = load(root)
    assert index.classes == ("cat", "dog")
    assert sum(len(split) for split in index.splits.values()) == 12
    ((reason, keys),) = left_out(root).items()
    assert reason == JUNK and len(keys) == 21
    assert "@eaDir/" in keys and "cat/lost+found/" in keys


def test_every_kind_of_other_file_has_its_line(root):
    outside = root.parent / "elsewhere"
    outside.mkdir()
    for name in (
        "labels.csv", "cat/00.json", "cat/clip.mp4", "cat/more.zip", "cat/scan.dcm", "cat/notes", "cat/x.abc",
        "cat/00.png.crdownload", "stray.png", "cat/.hidden.png",
    ):  # fmt: skip
        (root / name).write_bytes(b"?")
    os.symlink(root / "nowhere.mov", root / "cat" / "gone.mov")
    os.symlink("self", root / "cat" / "self")
    os.symlink(root / "cat", root / "cat" / "loop")
    os.mkfifo(root / "cat" / "pipe")
    assert left_out(root) == {
        "archives (unpack them)": ["cat/more.zip"],
        "hidden, by a dot before the name": ["cat/.hidden.png"],
        "images of a kind that is not read (convert them to PNG or JPEG)": ["cat/scan.dcm"],
        "images that are in no class folder": ["stray.png"],
        "labels, tables and text": ["cat/00.json", "labels.csv"],
        "links back to a folder that they are in": ["cat/loop/"],
        "links to something that does not exist": ["cat/gone.mov", "cat/self"],
        "no regular files (pipes, sockets or devices)": ["cat/pipe"],
        "of the suffix .abc": ["cat/x.abc"],
        "unfinished downloads and temporary files": ["cat/00.png.crdownload"],
        "videos": ["cat/clip.mp4"],
        "without a suffix": ["cat/notes"],
    }


def test_a_socket_is_never_opened(root, monkeypatch):
    with socket.socket(socket.AF_UNIX) as one:
        monkeypatch.chdir(root / "cat")  # a socket's path may not be long
        one.bind("s.png")
    assert left_out(root) == {"no regular files (pipes, sockets or devices)": ["cat/s.png"]}


def test_the_card_has_counts_and_examples(root):
    for number in range(8):
        (root / "cat" / f"{number}.xml").write_text("<annotation/>")
    card = data_card(load(root), scan=True, include_test=True)
    (left,) = card.left_out
    assert (left.reason, left.count) == ("labels, tables and text", 8)
    assert left.examples == tuple(f"cat/{number}.xml" for number in range(5))
    lines = data_lines(card)
    assert lines[-2:] == [
        "left out of the data: 8 files",
        "  labels, tables and text: 8 (cat/0.xml, cat/1.xml, cat/2.xml, cat/3.xml, cat/4.xml and 3 more)",
    ]


def test_a_search_opens_no_file_that_is_left_out(root, monkeypatch):
    (root / "cat" / "x").write_bytes(encoded())
    index = load(root)
    opened: list[str] = []
    monkeypatch.setattr(
        "tlsearch.data.sources.listing.FileReader.head", lambda self, key, num_bytes: opened.append(key)
    )
    card = data_card(index, scan=True)
    assert opened == [] and [one.reason for one in card.left_out] == ["without a suffix"]


def test_a_search_says_what_it_leaves_out(root, caplog):
    (root / "cat" / "clip.mp4").write_bytes(b"?")
    (root / "cat" / ".DS_Store").write_bytes(b"?")
    require_ready(load(root))
    assert "files left out of the data: videos: 1. `tlsearch check` names them" in caplog.text


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif"])
def test_heic_without_its_decoder_is_found_before_a_search(ready_folder, suffix, monkeypatch, caplog):
    monkeypatch.setattr("tlsearch.data.images.decode.importlib.util.find_spec", lambda _: None)
    (ready_folder / "test" / "a" / f"x{suffix}").write_bytes(HEIC)
    (ready_folder / "val" / "a" / f"png{suffix}").write_bytes(encoded())
    require_ready(load(ready_folder))
    assert (
        f"images of test that cannot be decoded here if they are what they are called: 'test/a/x{suffix}'"
        in caplog.text
    )
    (ready_folder / "val" / "a" / f"x{suffix}").write_bytes(HEIC)
    index = load(ready_folder)
    with pytest.raises(DataError, match=rf"1 of 8 .*\n.*x{suffix}: HEIF needs pillow-heif"):
        require_ready(index)
    card = data_card(index, scan=True, include_test=True)
    assert [one.error for one in card.corrupt] == [
        "HEIF needs pillow-heif (pip install pillow-heif), or convert the image"
    ] * 2


def test_images_beside_a_manifest_that_no_row_names(tmp_path, write_images):
    for name in ("a", "b"):
        write_images(tmp_path / "images" / name, 6)
    rows = [f"images/{name}/{number:02d}.png,{name}" for name in ("a", "b") for number in range(5)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "images" / "a" / "notes.txt").write_text("x")
    index = load_index(DataSpec(source="manifest", path=str(tmp_path / "m.csv")))
    assert {one.reason: one.keys for one in told_by_content(index)} == {
        "images that no row names": ("images/a/05.png", "images/b/05.png"),
        "labels, tables and text": ("images/a/notes.txt",),
    }


def test_labels_of_a_manifest_in_two_unicode_forms_are_one_class(tmp_path, write_images):
    write_images(tmp_path / "images", 12)
    labels = ["caf\u00e9", "cafe\u0301", "x"] * 4
    rows = [f"images/{number:02d}.png,{label}" for number, label in enumerate(labels)]
    (tmp_path / "m.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    index = load_index(DataSpec(source="manifest", path=str(tmp_path / "m.csv"), split=SplitSpec(test=0.0)))
    assert index.classes == ("caf\u00e9", "x")
    assert sum(split.labels.count(0) for split in index.splits.values()) == 8


def test_frames_and_dark_depths_are_said(root):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(root / "cat" / "x.gif", save_all=True, append_images=frames[1:])
    for number in range(3):
        values = np.full((8, 8), 4095, dtype=np.uint16)
        values[0, number] = 0
        Image.fromarray(values).save(root / "dog" / f"deep{number}.png")
    notes = data_card(load(root), scan=True, include_test=True).notes
    assert notes[0] == "images with several frames or pages, of which the first is read: 1"
    assert "16 bits a channel" in notes[1] and "3 of 3" in notes[1]
    assert "4,095 (12 bits)" in notes[1] and "multiply their values by 16" in notes[1]


def test_bright_16_bit_images_need_no_note(root):
    Image.fromarray(np.linspace(0, 60000, 64, dtype=np.uint16).reshape(8, 8)).save(root / "cat" / "x.png")
    assert data_card(load(root), scan=True, include_test=True).notes == ()
