"""Exported models give what the model gives, on real images, without tlsearch."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from small_search import write_shapes
from without_tlsearch import run_without_tlsearch

from tlsearch.app.production.export_model import export_model
from tlsearch.core.errors import StorageError, UserError
from tlsearch.core.types import TransformSpec, TrialConfig, WeightsSource
from tlsearch.model import build_model, default_transform, resolve_weights
from tlsearch.results import load_model, predict
from tlsearch.results.export import base
from tlsearch.results.export.base import ParityError, check_parity
from tlsearch.train import ModelMeta, save_model_checkpoint

SIZES = {"mobilenet_v3_small": 48, "swin_t": 64, "timm/tf_efficientnet_lite0": 64, "squeezenet1_1": 64}
NUM_IMAGES = 102


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_shapes(folder, counts={"val": NUM_IMAGES // 3})
    return folder


def _checkpoint(folder: Path, backbone: str) -> Path:
    """Random weights whose logits are large enough to tell."""
    if backbone.startswith("timm/"):
        pytest.importorskip("timm", reason="an optional extra")
    size = SIZES[backbone]
    weights = resolve_weights(backbone, WeightsSource(kind="none"))
    model = build_model(backbone, num_classes=3, weights=weights, image_size=size, seed=1).eval()
    native = default_transform(backbone)
    transform = TransformSpec(resize_size=size + 8, crop_size=size, interpolation=native.interpolation)
    meta = ModelMeta(
        backbone=backbone,
        classes=("circle", "square", "räksmörgås"),
        weights_id="none",
        weights_digest="none",
        transform=transform,
        image_size=size,
        config=TrialConfig(backbone=backbone),
        epoch=1,
        metric="val_accuracy",
        value=0.5,
        metrics={},
        temperature=0.5,
    )
    save_model_checkpoint(folder, state=model.state_dict(), meta=meta)
    return folder


@pytest.mark.parametrize(
    ("backbone", "form"),
    [
        pytest.param("mobilenet_v3_small", "torch", marks=pytest.mark.slow),
        ("mobilenet_v3_small", "script"),
        pytest.param("mobilenet_v3_small", "onnx", marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", "openvino", marks=pytest.mark.slow),
        ("squeezenet1_1", "onnx"),
        ("squeezenet1_1", "openvino"),
        pytest.param("timm/tf_efficientnet_lite0", "script", marks=pytest.mark.slow),
        ("squeezenet1_1", "script"),
        pytest.param("swin_t", "torch", marks=pytest.mark.slow),
        pytest.param("swin_t", "script", marks=pytest.mark.slow),
        pytest.param("swin_t", "onnx", marks=pytest.mark.slow),
        pytest.param("timm/tf_efficientnet_lite0", "torch", marks=pytest.mark.slow),
        pytest.param("timm/tf_efficientnet_lite0", "onnx", marks=pytest.mark.slow),
    ],
)
def test_an_export_equals_its_model(tmp_path: Path, images: Path, backbone: str, form: str) -> None:
    if form in ("onnx", "openvino"):
        pytest.importorskip("onnxruntime", reason="an optional extra")
    if form == "openvino":
        pytest.importorskip("openvino", reason="an optional extra")
    checkpoint = _checkpoint(tmp_path / "model", backbone)
    result = export_model(str(checkpoint), form=form, output=tmp_path / "out", images=images)
    assert result.parity.images == 100 and result.parity.real
    assert max(result.parity.logits, result.parity.scores) <= 1e-4
    assert [one.format for one in result.latency] == ["model", form]
    assert not list(tmp_path.glob(".tlsearch-export-*"))
    if form == "onnx":
        _check_onnx(tmp_path / "out")
    with pytest.raises(StorageError, match="overwrites nothing"):
        export_model(str(checkpoint), form=form, output=tmp_path / "out", images=images)


def _check_onnx(path: Path) -> None:
    import onnx

    metadata = {one.key: one.value for one in onnx.load(str(path)).metadata_props}
    assert json.loads(metadata["labels"]) == ["circle", "square", "räksmörgås"]
    assert json.loads(metadata["preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    assert float(metadata["temperature"]) == 0.5


@pytest.mark.slow
def test_the_script_predicts_without_tlsearch_what_predict_says(tmp_path: Path, images: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "model", "mobilenet_v3_small")
    export_model(str(checkpoint), form="script", output=tmp_path / "out", images=images)
    files = sorted(images.rglob("*.png"))[::20]
    script, packages = tmp_path / "out/predict.py", ("torchvision", "safetensors")
    said = run_without_tlsearch(script, "--json", *map(str, files), cwd=tmp_path, packages=packages)
    for ours, theirs in zip(predict(load_model(checkpoint), files), json.loads(said), strict=True):
        assert (theirs["path"], theirs["label"]) == (ours.path, ours.label)
        assert theirs["score"] == pytest.approx(ours.score, abs=1e-4)


def test_an_export_that_differs_is_not_handed_out(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = _checkpoint(tmp_path / "model", "mobilenet_v3_small")
    monkeypatch.setattr(base, "TOLERANCE", -1.0)
    with pytest.raises(ParityError, match="its logits differ by"):
        export_model(str(checkpoint), form="torch", output=tmp_path / "out", images=images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_parity_sees_a_difference_in_one_image() -> None:
    images = torch.zeros(30, 3, 4, 4)
    images[27] = 1.0
    expected = images.flatten(1)[:, :2], images.flatten(1)[:, :2]
    run = lambda part: (part.flatten(1)[:, :2], part.flatten(1)[:, :2])  # noqa: E731
    assert check_parity("x", run, [images], expected, real=True).logits == 0.0
    wrong = lambda part: (part.flatten(1)[:, :2] * 0.999, part.flatten(1)[:, :2])  # noqa: E731
    with pytest.raises(ParityError, match=r"differ by 0\.001"):
        check_parity("x", wrong, [images], expected, real=True)
    lost = lambda part: (part.flatten(1)[:, :2] * float("nan"), part.flatten(1)[:, :2])  # noqa: E731
    with pytest.raises(ParityError):
        check_parity("x", lost, [images], expected, real=True)


def test_a_format_or_a_folder_that_does_not_exist_is_named_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="onnx, torch, openvino, hf or script, not 'tflite'"):
        export_model(str(tmp_path), form="tflite")
    with pytest.raises(UserError, match="--output must name a file in a folder that exists"):
        export_model(str(tmp_path), form="onnx", output=tmp_path / "typo" / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "right", "wrong"), [(1.0, 0.5e-4, 2e-4), (1000.0, 0.05, 0.2)])
def test_parity_is_judged_by_the_size_of_the_logits(size: float, right: float, wrong: float) -> None:
    images, expected = torch.zeros(3, 3, 8, 8), (torch.full((3, 2), size), torch.full((3, 2), 0.5))

    def off_by(error: float, part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return expected[0][: len(part)] + error, expected[1][: len(part)]

    found = check_parity("x", partial(off_by, right), [images], expected, real=True)
    assert found.largest_logit == size and found.logits == pytest.approx(right, rel=0.01)
    with pytest.raises(ParityError, match="of its largest logit"):
        check_parity("x", partial(off_by, wrong), [images], expected, real=True)


@pytest.mark.parametrize(
    ("most", "expected"), [(3, [0, 4, 8]), (9, [0, 1, 2, 4, 5, 6, 8, 9, 10]), (20, list(range(12)))]
)
def test_images_to_check_on_are_of_all_classes(most: int, expected: list[int]) -> None:
    """Keys are sorted by class, so that the last ones must be among them."""
    assert list(base.spread([str(place) for place in range(12)], most)) == [str(place) for place in expected]
