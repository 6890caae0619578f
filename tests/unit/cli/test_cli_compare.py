"""``compare`` on real, if tiny, models: a shared split, folders of images, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scoring import accuracy_on
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
from tlsearch.data import load_index
from tlsearch.results import load_model
from tlsearch.trial import run_trial

CLASSES = ("circle", "square")


class _Listener:
    def report(self, report: EpochReport) -> Decision:
        return Decision.CONTINUE


def _write_images(root: Path, counts: dict[str, int], classes: tuple[str, ...] = CLASSES) -> None:
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[8:20, 8:20] = 255 if label == classes[0] else 0
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with train/ and val/, and two trained models, a/ and b/."""
    root = tmp_path_factory.mktemp("home")
    _write_images(root / "images", {"train": 8, "val": 10})
    data = DataSpec(source="folder", path=str(root / "images"), image_size=32)
    setup = TrialSetup(
        data=data,
        weights={"mobilenet_v3_small": WeightsSource(kind="none")},
        max_epochs=1,
        cache=CacheSpec(directory=str(root / "cache")),
    )
    for number, name in enumerate("ab"):
        config = TrialConfig(backbone="mobilenet_v3_small", head_lr=1e-2 * (1 + 9 * number), bn_policy="frozen")
        directory = str(root / "trials" / name)
        assignment = TrialAssignment(number=number, seed=number, config=config, setup=setup, directory=directory)
        outcome = run_trial(assignment, _Listener())
        assert outcome.best_value is not None, outcome.error
        shutil.copytree(Path(directory) / "best", root / name)
    return root


def _run(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done.output


def test_two_models_on_a_folder_with_splits(home: Path) -> None:
    found: dict[str, Any] = json.loads(_run(home / "a", home / "b", "--data", home / "images", "--json"))
    index = load_index(DataSpec(source="folder", path=str(home / "images")))
    for side in "ab":
        model = load_model(home / side, device="cpu")
        assert found[side]["accuracy"] == pytest.approx(accuracy_on(model, index, "val"))
    assert found["kind"] == "models" and found["paired"]["num_images"] == 20
    only = found["paired"]["only_a"], found["paired"]["only_b"]
    assert sum(only) + found["both_right"] + found["both_wrong"] == 20
    assert found["paired"]["difference"] == pytest.approx(found["a"]["accuracy"] - found["b"]["accuracy"])


def test_a_folder_of_class_folders_is_used_whole(home: Path) -> None:
    found = json.loads(_run(home / "a", home / "a", "--data", home / "images" / "train", "--json"))
    assert found["paired"]["num_images"] == 16 and found["paired"]["p_value"] == 1.0
    assert found["disagreements"] == []
    assert "no difference shown" in _run(home / "a", home / "a", "--data", home / "images" / "train")


def test_other_classes_are_refused_with_both_lists(home: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "other", {"val": 2, "train": 2}, classes=("circle", "triangle"))
    text = _run(home / "a", home / "b", "--data", tmp_path / "other", code=2)
    assert "triangle" in text and "square" in text and "Traceback" not in text


def test_what_cannot_be_compared(home: Path, tmp_path: Path) -> None:
    assert "--data" in _run(home / "a", home / "b", code=2)
    assert "no search" in _run("one", "two", code=2)
    (tmp_path / "x" / "train" / "a").mkdir(parents=True)
    _write_images(tmp_path / "y", {"train": 2})
    assert "has no val/" in _run(home / "a", home / "b", "--data", tmp_path / "y", code=2)


def test_the_sealed_test_split_stays_closed(home: Path, tmp_path: Path) -> None:
    from tlsearch.app.catalog.catalog import SearchEntry, register

    images = tmp_path / "images"
    _write_images(images, {"train": 2, "val": 2, "test": 2})
    folder = tmp_path / "runs" / "sealed"
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").write_text(
        f"name: s\ndata: {{source: folder, path: {images}, image_size: 32}}\nspace: {{backbone: mobilenet_v3_small}}\n"
    )
    entry = SearchEntry(
        search_id="sealed",
        experiment="s",
        directory=str(folder),
        source="",
        tracking_uri="sqlite:///absent.db",
        metric="val_accuracy",
        created=0.0,
    )
    register(entry)
    text = _run("sealed:0", home / "a", "--data", images / "test", code=2)
    assert "stays closed until `promote`" in text
