"""Predictions of a checkpoint: equal to the trial's own, whatever an image comes as."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scoring import accuracy_on

import tlsearch
from tlsearch.core.errors import DataError, StorageError, TrackingError, UsageError, UserError
from tlsearch.results import load_model, predict

if TYPE_CHECKING:
    from conftest import Trained


def test_accuracy_on_the_validation_images_is_the_one_reported(trained: Trained) -> None:
    model = load_model(trained.folder / "best", device="cpu")
    assert accuracy_on(model, trained.index, "val") == trained.outcome.best_value
    assert model.meta.epoch == trained.outcome.best_epoch
    files = trained.val_files
    labels = [path.parent.name for path in files]
    right = [p.label == label for p, label in zip(predict(model, files), labels, strict=True)]
    assert sum(right) / len(right) == trained.outcome.best_value


def test_the_val_loss_can_be_had_from_the_scores(trained: Trained) -> None:
    """The scores too are those of the trial, not only the labels."""
    model = load_model(trained.folder, device="cpu")
    predictions = predict(model, trained.val_files, top=len(model.classes))
    losses = []
    for path, prediction in zip(trained.val_files, predictions, strict=True):
        score = {s.label: s.score for s in prediction.top}[path.parent.name]
        losses.append(-np.log(score))
    reported = trained.reports[model.meta.epoch].metrics["val_loss"]
    assert np.mean(losses) == pytest.approx(reported, abs=1e-5)


def test_a_prediction_lists_classes_best_first(trained: Trained) -> None:
    model = load_model(trained.folder, device="cpu")
    (prediction,) = predict(model, [trained.val_files[0]], top=2)
    assert prediction.path == str(trained.val_files[0])
    assert prediction.label == prediction.top[0].label and prediction.score == prediction.top[0].score
    assert len(prediction.top) == 2 and prediction.top[0].score >= prediction.top[1].score
    (full,) = predict(model, [trained.val_files[0]])
    assert {s.label for s in full.top} == set(model.classes)
    assert sum(s.score for s in full.top) == pytest.approx(1.0)
    assert json.loads(json.dumps(asdict(full)))["top"][0] == {"label": full.label, "score": full.score}


def test_path_bytes_and_pixels_give_the_same(trained: Trained) -> None:
    model = load_model(trained.folder, device="cpu")
    path = trained.val_files[0]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    kinds: list[Any] = [path, str(path), path.read_bytes(), pixels]
    answers = [predict(model, [kind])[0] for kind in kinds]
    assert all(answer.top == answers[0].top for answer in answers)
    assert [answer.path for answer in answers] == [str(path), str(path), "image 0", "image 0"]
    assert predict(model, []) == [] == predict(model, iter([]))
    assert [answer.path for answer in model.predict(path.parent.glob(path.name))] == [str(path)], "read once"


def test_a_number_of_classes_below_one_is_refused_and_a_model_prints_in_a_line(trained: Trained) -> None:
    model = load_model(trained.folder, device="cpu")
    for top in (0, -1):
        with pytest.raises(UsageError, match=f"top must be at least 1, not {top}"):
            predict(model, trained.val_files, top=top)
    assert repr(model).endswith(f": {model.meta.backbone}, {len(model.classes)} classes)") and "\n" not in repr(model)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Path("/no/such/image.png"), "/no/such/image.png"),
        (b"", "image 0"),
        (b"not an image", "image 0"),
        (np.zeros((4, 4), dtype=np.uint8), r"\(4, 4\)"),
        (np.zeros((4, 4, 3), dtype=np.float32), "float32"),
        (7, "int"),
    ],
)
def test_what_is_no_image_is_named(trained: Trained, image: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        predict(load_model(trained.folder, device="cpu"), [image])


@pytest.mark.parametrize("device", ["gpu9", "cuda:77", "meta:x"])
def test_a_device_that_is_not_here_is_told(trained: Trained, device: str) -> None:
    with pytest.raises(UserError, match=f"a device is auto, cpu, cuda or cuda:N.*{device}"):
        load_model(trained.folder, device=device)


def test_a_single_path_is_not_taken_for_many(trained: Trained) -> None:
    with pytest.raises(DataError, match="sequence"):
        predict(load_model(trained.folder, device="cpu"), "image.png")  # type: ignore[arg-type]


@pytest.mark.parametrize("classes", [("square", "circle", "stripe"), ("circle", "square"), ("a", "b", "c")])
def test_data_with_other_classes_are_refused_with_both_lists(trained: Trained, classes: tuple[str, ...]) -> None:
    model = load_model(trained.folder, device="cpu")
    with pytest.raises(DataError, match="circle, square, stripe") as told:
        accuracy_on(model, replace(trained.index, classes=classes), "val")
    assert ", ".join(classes) in str(told.value)


def test_a_split_that_is_not_there_is_named(trained: Trained) -> None:
    with pytest.raises(DataError, match="test"):
        accuracy_on(load_model(trained.folder, device="cpu"), trained.index, "test")


def test_changed_weights_are_refused(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "best"
    shutil.copytree(trained.folder / "best", folder)
    weights = next(folder.glob("weights-*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StorageError, match="sha256"):
        load_model(folder)


@pytest.mark.parametrize("content", [None, "empty", "MLmodel"])
def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "model"
    if content:
        folder.mkdir()
        (folder / content).write_text("")
    with pytest.raises(StorageError, match="model"):
        load_model(folder)


def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI"):
        load_model("models:/m-missing", tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


def test_the_package_offers_both() -> None:
    assert tlsearch.load_model is load_model and tlsearch.predict is predict
    with pytest.raises(AttributeError, match="nothing"):
        tlsearch.nothing  # noqa: B018


@pytest.mark.slow
def test_the_package_imports_torch_only_when_a_model_is_used() -> None:
    code = (
        "import sys, tlsearch, tlsearch.results; assert 'torch' not in sys.modules; "
        "assert callable(tlsearch.predict); assert 'torch' in sys.modules; "
        "assert not {'ray', 'optuna', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
