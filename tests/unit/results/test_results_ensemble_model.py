"""An ensemble is one model: it loads, predicts, is exported and served as any other; its folder is read strictly."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from averaging import average_scores
from small_ensemble import COUNTS, write_ensemble

from tlsearch.app.production.export_model import export_model
from tlsearch.core.errors import StorageError, UserError
from tlsearch.results import SERVED_CODE, load_model, logits_on, predict
from tlsearch.results.inference.networks import network_logits
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.train import copy_calibrated, read_ensemble_meta

if TYPE_CHECKING:
    from conftest import Trained


@pytest.fixture(scope="module")
def ensemble(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ensemble(trained.folder / "best", tmp_path_factory.mktemp("ensemble"))


@pytest.fixture
def copy(ensemble: Path, tmp_path: Path) -> Path:
    shutil.copytree(ensemble, tmp_path / "copy")
    return tmp_path / "copy"


def test_its_scores_are_the_weighted_mean_of_its_members(trained: Trained, ensemble: Path) -> None:
    """What the selection has computed from kept logits is what the model gives."""
    members = [load_model(ensemble.parent / str(place)) for place in range(len(COUNTS))]
    logits = np.stack([logits_on(one, trained.index, "val").double().numpy() for one in members])
    expected = average_scores(logits, [0.5, 1.5, 2.5], COUNTS)
    model = load_model(ensemble)
    found = logits_on(model, trained.index, "val").numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, atol=1e-9)
    (first, *_) = predict(model, trained.val_files[:1])
    assert first.score == pytest.approx(np.exp(expected[0]).max(), abs=1e-6)
    assert model.classes == members[0].classes and model.temperature == 1.0


def test_members_share_a_prefix_in_memory_and_in_compute(ensemble: Path) -> None:
    """The parts that have the same bits and the same input are one module, which runs once; others are not touched."""
    first, second, other = load_model(ensemble, device="cpu").networks
    for ours, theirs in zip(first.model.parts[:-1], second.model.parts[:-1], strict=True):
        assert ours is theirs
    assert first.model.head is not second.model.head and first.model.stem is not other.model.stem
    calls: list[object] = []
    hook = first.model.stage4.register_forward_hook(lambda module, *_: calls.append(module))
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        together = network_logits([first, second], pixels)
        assert calls == [first.model.stage4]
        assert torch.equal(together, torch.stack([first.model(pixels), second.model(pixels)], dim=1))
    hook.remove()


def test_tensors_that_members_share_lie_once(trained: Trained, ensemble: Path, copy: Path) -> None:
    """By the hash in their names; a copy with a temperature is whole, and stands for the same weights."""
    names = {file.name for member in read_ensemble_meta(ensemble).members for file in member.checkpoint.files}
    assert {path.name for path in ensemble.iterdir()} == {*names, "ensemble.json"}
    copy_calibrated(ensemble, copy, 2.0)
    scaled, plain = load_model(copy), load_model(ensemble)
    assert scaled.temperature == 2.0
    assert torch.equal(logits_on(scaled, trained.index, "val"), logits_on(plain, trained.index, "val"))
    assert checkpoint_digest(copy) == checkpoint_digest(ensemble)


def test_a_served_ensemble_answers_to_the_bit_what_predict_says(
    trained: Trained, ensemble: Path, tmp_path: Path
) -> None:
    """With one code for both, from one folder."""
    from mlflow.entities import LoggedModel, LoggedModelStatus
    from mlflow.pyfunc import load_model as load_pyfunc

    from tlsearch.tracking.registry.logged_models import write_model

    model = LoggedModel(
        experiment_id="0",
        model_id="m-0",
        name="ensemble",
        artifact_location=str(tmp_path / "model"),
        creation_timestamp=0,
        last_updated_timestamp=0,
        status=LoggedModelStatus.READY,
    )
    write_model(tmp_path / "model", model, run_id="0", checkpoint=ensemble, served_code=SERVED_CODE)
    files = trained.val_files[::15]
    answers = load_pyfunc(str(tmp_path / "model")).predict(
        [base64.b64encode(one.read_bytes()).decode() for one in files]
    )
    expected = json.loads(json.dumps([asdict(one) for one in predict(load_model(ensemble), files)]))
    assert json.loads(json.dumps(answers)) == [{k: v for k, v in one.items() if k != "path"} for one in expected]
    again = predict(load_model(tmp_path / "model"), files)
    assert [one.score for one in again] == [one["score"] for one in expected]


@pytest.mark.slow
def test_it_is_exported_as_one_onnx_file_with_an_input_for_each_preprocessing(
    trained: Trained, ensemble: Path, tmp_path: Path
) -> None:
    """The metadata say what goes into which input."""
    onnx = pytest.importorskip("onnx", reason="an optional extra")
    pytest.importorskip("onnxruntime", reason="an optional extra")
    images = Path(trained.index.root) / "val"
    result = export_model(str(ensemble), form="onnx", output=tmp_path / "out.onnx", images=images)
    assert result.parity.real and max(result.parity.logits, result.parity.scores) <= 1e-4
    proto = onnx.load(str(tmp_path / "out.onnx"))
    assert [one.name for one in proto.graph.input] == ["images_1", "images_2"]
    metadata = {one.key: one.value for one in proto.metadata_props}
    inputs, members = json.loads(metadata["inputs"]), json.loads(metadata["members"])
    assert [inputs[name]["crop_size"] for name in ("images_1", "images_2")] == [32, 48]
    assert [one["weight"] for one in members] == [0.6, 0.2, 0.2]
    assert [one["input"] for one in members] == ["images_1", "images_1", "images_2"]
    one = sum(path.stat().st_size for path in (ensemble.parent / "0").iterdir())
    assert proto.ByteSize() < 2.5 * one  # two backbones for three members: what two of them share is in it once


@pytest.mark.parametrize("form", ["script", "hf"])
def test_a_format_of_one_network_holds_no_ensemble(ensemble: Path, tmp_path: Path, form: str) -> None:
    """The error names the formats that do."""
    with pytest.raises(UserError, match="is an ensemble: use --format onnx, torch or openvino"):
        export_model(str(ensemble), form=form, output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


Change = Callable[[dict[str, Any]], None]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(format=2), "must have the format 1"),
        (lambda c: c.update(members=[]), "members: "),
        (lambda c: c["members"][0].update(count=0), r"members\[0\].count: must be at least 1"),
        (lambda c: c["members"][1].update(temperature=float("1e9")), r"members\[1\].temperature: must be at most"),
        (lambda c: c["members"][1].update(path="../x"), r"path: is a key that this version does not know"),
        (lambda c: c["members"][1]["checkpoint"].update(weights_file="../x.safetensors"), "never a path"),
        (lambda c: c["members"][1]["checkpoint"].update(weights_file="x.safetensors"), "must be there"),
        (
            lambda c: c["members"][1]["checkpoint"].update(
                classes=["square", "circle", "stripe"], class_to_idx={"square": 0, "circle": 1, "stripe": 2}
            ),
            "the same classes in the same order",
        ),
        (lambda c: c.pop("metric"), "metric: is required"),
    ],
)
def test_what_is_wrong_in_its_file_is_an_error_that_names_it(copy: Path, change: Change, says: str) -> None:
    """As of a plain checkpoint."""
    content = json.loads((copy / "ensemble.json").read_text())
    change(content)
    (copy / "ensemble.json").write_text(json.dumps(content))
    with pytest.raises(StorageError, match=says) as caught:
        load_model(copy)
    assert str(copy) in str(caught.value)
