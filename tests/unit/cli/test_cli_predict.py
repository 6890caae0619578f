"""``predict`` on folders as they are: bad files, links, strange names, and outputs that cannot be written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.cli.root import app
from tlsearch.core.types import (
    CacheSpec,
    DataSpec,
    Decision,
    EpochReport,
    TrialAssignment,
    TrialConfig,
    TrialSetup,
    WeightsSource,
)
from tlsearch.trial import run_trial

CLASSES = ("[red] circle", "sq\x1b[2Juare")  # names are data


class _Listener:
    def report(self, report: EpochReport) -> Decision:
        return Decision.CONTINUE


def _picture(path: Path, number: int, *, white: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixels[8:20, 8:20] = 255 if white else 0
    Image.fromarray(pixels).save(path, format="PNG")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    for split, count in (("train", 4), ("val", 2)):
        for label in CLASSES:
            for number in range(count):
                _picture(root / "images" / split / label / f"{number}.png", number, white=label == CLASSES[0])
    setup = TrialSetup(
        data=DataSpec(source="folder", path=str(root / "images"), image_size=32),
        weights={"mobilenet_v3_small": WeightsSource(kind="none")},
        max_epochs=1,
        cache=CacheSpec(directory=str(root / "cache")),
    )
    config = TrialConfig(backbone="mobilenet_v3_small", head_lr=1e-2, bn_policy="frozen")
    assignment = TrialAssignment(number=0, seed=0, config=config, setup=setup, directory=str(root / "trial"))
    outcome = run_trial(assignment, _Listener())
    assert outcome.best_value is not None, outcome.error
    return root / "trial" / "best"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good images, one of them behind a link, beside what a walk of images meets."""
    root = tmp_path / "in"
    _picture(root / "b.png", 1)
    _picture(root / "deep" / "a.png", 2)
    _picture(tmp_path / "elsewhere" / "c.PNG", 3)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "link" / "round").symlink_to(root)
    (root / "._b.png").write_bytes(b"\0\5\26\7")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "b.png").write_bytes(b"no image")
    (root / "notes.txt").write_text("not an image")
    return root


def _predict(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_the_walk_is_that_of_training_folders(model: Path, folder: Path) -> None:
    done = _predict(model, folder, "--csv")
    names = [str(Path(row["path"]).relative_to(folder)) for row in _rows(done.stdout)]
    assert names == ["b.png", "deep/a.png", "link/c.PNG"]
    assert "left out by their suffix: 1 .txt" in done.stderr


def test_a_bad_image_costs_no_other_its_prediction(model: Path, folder: Path, tmp_path: Path) -> None:
    good = {row["path"]: row["label"] for row in _rows(_predict(model, folder, "--csv").stdout)}
    (folder / "a_empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "b.png").read_bytes()[:100])
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "page.jpg").write_text("<!DOCTYPE html>")
    done = _predict(model, folder, "--csv", code=1)
    rows = _rows(done.stdout)
    assert {row["path"]: row["label"] for row in rows if not row["error"]} == good
    bad = {Path(row["path"]).name: row for row in rows if row["error"]}
    assert set(bad) == {"a_empty.png", "cut.png", "gone.png", "page.jpg"}
    assert all(not row["label"] and not row["score"] for row in bad.values())
    assert all(name in done.stderr for name in bad) and "3 predictions; 4 cannot be read" in done.stderr
    document: list[dict[str, Any]] = json.loads(_predict(model, folder, "--json", code=1).stdout)
    assert [one["error"] is None for one in document] == [not row["error"] for row in rows]
    assert document[0]["label"] is None and document[0]["top"] == [] and "is empty" in document[0]["error"]
    table = _predict(model, folder, code=1).stdout
    assert table.count(".png") + table.count(".PNG") == 3


def test_strict_is_all_or_nothing(model: Path, folder: Path, tmp_path: Path) -> None:
    assert len(_rows(_predict(model, folder, "--csv", "--strict").stdout)) == 3
    (folder / "zz.png").write_bytes(b"")
    done = _predict(model, folder, "--csv", "--strict", "--output", tmp_path / "o.csv", code=2)
    assert done.stdout == "" and "zz.png" in done.stderr and not (tmp_path / "o.csv").exists()


def test_only_bad_images(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    done = _predict(model, tmp_path / "in", code=1)
    assert "0 predictions; 1 cannot be read" in done.stderr


def test_a_folder_without_an_image_says_what_is_in_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert "it is empty" in _predict(model, tmp_path / "in", code=2).stderr
    (tmp_path / "in" / "a.txt").write_text("")
    assert "1 .txt" in _predict(model, tmp_path / "in", code=2).stderr
    assert "does not exist" in _predict(model, tmp_path / "gone.png", code=2).stderr


@pytest.fixture
def locked(folder: Path) -> Iterator[Path]:
    inner = folder / "locked"
    inner.mkdir(mode=0)
    yield inner
    inner.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_listed_is_reported(model: Path, folder: Path, locked: Path) -> None:
    done = _predict(model, folder, "--csv", code=1)
    assert len(_rows(done.stdout)) == 3 and "cannot be listed" in done.stderr


def test_labelled_images_with_a_bad_one(model: Path, tmp_path: Path) -> None:
    for label in CLASSES:
        _picture(tmp_path / "d" / label / "0.png", 5)
    (tmp_path / "d" / CLASSES[0] / "1.png").write_bytes(b"")
    document = json.loads(_predict(model, "--data", tmp_path / "d", "--json", code=1).stdout)
    assert document["images"] == 2 and document["accuracy"] == 0.5
    assert [one["truth"] for one in document["predictions"] if one["error"]] == [CLASSES[0]]


def test_names_that_are_not_utf8(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = _picture(tmp_path / "plain.png", 1)
    (tmp_path / "in").mkdir()
    raw = os.fsencode(tmp_path / "in") + b"/caf\xe9.png"
    shutil.copy(os.fsencode(picture), raw)
    printed = _predict(model, tmp_path / "in", "--csv").stdout_bytes
    assert raw in printed
    _predict(model, tmp_path / "in", "--output", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_bytes() == printed
    _predict(model, tmp_path / "in", "--output", tmp_path / "o.json")
    assert os.fsencode(json.loads((tmp_path / "o.json").read_text())[0]["path"]) == raw
    monkeypatch.chdir(tmp_path)  # a longer path would be broken into lines somewhere
    assert "in/caf\\xe9.png" in _predict(model, Path("in")).stdout


def test_names_are_data_in_table_and_errors(model: Path, tmp_path: Path) -> None:
    _picture(tmp_path / "in" / "IMG [copy].png", 1)
    (tmp_path / "in" / "ba\nd\x1b[31m.png").write_bytes(b"")
    done = _predict(model, tmp_path / "in", code=1)
    assert "IMG [copy].png" in done.stdout and "ba\\nd\\x1b[31m.png" in done.stderr
    assert "\x1b" not in done.output
    assert "[red] circle" in done.stdout or "sq\\x1b[2Juare" in done.stdout


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("tlsearch.app.views.predictions.load_model", _never)
    (tmp_path / "file").write_text("")
    for output, words in (
        (tmp_path / "no" / "o.csv", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "o.csv", "is not a folder"),
        (tmp_path / ("x" * 300), "cannot be"),
        (Path("/proc/o.csv"), "can be written"),
        (tmp_path / "cat.PNG", "is called like an image"),
    ):
        text = _predict(model, folder, "--output", output, code=2).stderr
        assert "--output must name a file" in text and (words in text or "too long" in text), text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["elsewhere", "file", "in"]


def test_an_output_is_readable_and_keeps_links_and_devices(model: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "o.csv").symlink_to(tmp_path / "real.csv")
    before = os.umask(0o022)
    try:
        _predict(model, folder, "--output", tmp_path / "o.csv")
        _predict(model, folder, "--output", "/dev/null")
    finally:
        os.umask(before)
    assert (tmp_path / "o.csv").is_symlink() and "deep/a.png" in (tmp_path / "real.csv").read_text()
    assert stat.S_IMODE((tmp_path / "real.csv").stat().st_mode) == 0o644
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_model_that_is_a_file_says_what_it_is(model: Path, folder: Path, tmp_path: Path) -> None:
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n"
    (tmp_path / "lfs.pth").write_bytes(lfs)
    assert "is a Git LFS pointer" in _predict(tmp_path / "lfs.pth", folder, code=2).stderr
    weights = next(model.glob("*.safetensors"))
    assert "neither their classes nor their preprocessing" in _predict(weights, folder, code=2).stderr
    assert "does not exist" in _predict(tmp_path / "gone", folder, code=2).stderr
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    (copy / weights.name).write_bytes(lfs)
    assert "is a Git LFS pointer" in _predict(copy, folder, code=2).stderr
    (copy / "checkpoint.json").write_bytes(lfs)
    assert "is a Git LFS pointer" in _predict(copy, folder, code=2).stderr
