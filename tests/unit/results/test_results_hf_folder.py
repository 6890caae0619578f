"""The folder for transformers and timm: both load it and say what the model says, labels and preprocessing included."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_search import write_shapes

from tlsearch.app.production import export_model as exporting
from tlsearch.app.production.export_model import export_model
from tlsearch.core.errors import UsageError, UserError
from tlsearch.core.types import TransformSpec, TrialConfig, WeightsSource
from tlsearch.model import build_model, resolve_weights
from tlsearch.results import load_model
from tlsearch.results.export.base import expected_outputs, prepared_images
from tlsearch.results.export.hf_folder import HubError, crop_fraction
from tlsearch.train import ModelMeta, save_model_checkpoint

timm = pytest.importorskip("timm", reason="an optional extra")

CLASSES = ("circle", "sq:uare", "räksmörgås")
SIZES = {"mobilenet_v2": (72, 64), "timm/test_vit3": (47, 32), "timm/tinynet_e": (73, 64)}
TOKEN = "hf_" + "a1b2" * 8


def _checkpoint(folder: Path, backbone: str, temperature: float = 0.5) -> Path:
    resize, size = SIZES[backbone]
    weights = resolve_weights(backbone, WeightsSource(kind="none"))
    model = build_model(backbone, num_classes=3, weights=weights, image_size=size, seed=1).eval()
    meta = ModelMeta(
        backbone=backbone,
        classes=CLASSES,
        weights_id="none",
        weights_digest="none",
        transform=TransformSpec(resize_size=resize, crop_size=size, interpolation="bicubic", mean=(0.5, 0.4, 0.3)),
        image_size=size,
        config=TrialConfig(backbone=backbone),
        epoch=1,
        metric="val_accuracy",
        value=0.5,
        metrics={},
        temperature=temperature,
    )
    save_model_checkpoint(folder, state=model.state_dict(), meta=meta)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_shapes(folder, counts={"val": 3})
    return folder


def _pictures(images: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(images.rglob("*.png"))]


@pytest.mark.parametrize("backbone", SIZES)
def test_timm_builds_the_model_from_the_folder(tmp_path: Path, images: Path, backbone: str) -> None:
    checkpoint = _checkpoint(tmp_path / "model", backbone)
    result = export_model(str(checkpoint), form="hf", output=tmp_path / "out", images=images)
    assert result.parity.images == 9 and result.parity.logits <= 1e-3
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert tuple(model.pretrained_cfg["label_names"]) == CLASSES
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    pixels = torch.stack([transform(one) for one in _pictures(images)])
    with torch.inference_mode():
        scores = model(pixels).softmax(dim=1)
    _assert_same(checkpoint, images, pixels, scores)


@pytest.mark.parametrize("backbone", SIZES)
def test_transformers_builds_the_model_from_the_folder(tmp_path: Path, images: Path, backbone: str) -> None:
    transformers = pytest.importorskip("transformers", reason="only read here; the export does not need it")
    checkpoint = _checkpoint(tmp_path / "model", backbone)
    export_model(str(checkpoint), form="hf", output=tmp_path / "out", images=images)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert model.config.id2label == dict(enumerate(CLASSES))
    pixels = processor(_pictures(images))["pixel_values"]
    with torch.inference_mode():
        scores = model(pixels).logits.softmax(dim=1)
    _assert_same(checkpoint, images, pixels, scores)


def _assert_same(checkpoint: Path, images: Path, pixels: torch.Tensor, scores: torch.Tensor) -> None:
    classifier = load_model(checkpoint, device="cpu")
    ours = prepared_images(classifier, _pictures(images))
    assert torch.allclose(pixels, ours[0], atol=1e-6)
    assert torch.allclose(scores, expected_outputs(classifier, ours)[1], atol=1e-4)


def test_the_temperature_is_in_the_classifier(tmp_path: Path, images: Path) -> None:
    """So that a softmax of the logits gives the model's scores, in libraries that know no temperature."""
    for name, temperature in (("plain", 1.0), ("scaled", 4.0)):
        checkpoint = _checkpoint(tmp_path / f"of_{name}", "timm/tinynet_e", temperature)
        export_model(str(checkpoint), form="hf", output=tmp_path / name, images=images)
    plain, scaled = (
        timm.create_model(f"local-dir:{tmp_path / name}", pretrained=True).eval() for name in ("plain", "scaled")
    )
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(plain(pixels) / 4.0, scaled(pixels), atol=1e-6)


@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (73, 64), (47, 32), (64, 64), (1000, 7)])
def test_timm_resizes_to_the_same_side(resize: int, crop: int) -> None:
    from timm.data import create_transform

    fraction = crop_fraction(TransformSpec(resize_size=resize, crop_size=crop))
    transform: Any = create_transform((3, crop, crop), crop_pct=fraction, interpolation="bilinear")
    assert transform.transforms[0].size == resize


def test_a_backbone_that_timm_lacks_is_refused_with_the_formats_that_hold_it(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "squeezenet1_1", (64, 64))
    checkpoint = _checkpoint(tmp_path / "model", "squeezenet1_1")
    with pytest.raises(UserError, match="squeezenet1_1: use --format onnx, torch or openvino"):
        export_model(str(checkpoint), form="hf", output=tmp_path / "out", images=images)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


class _Hub:
    """The Hub's API as far as an upload needs it; remembers what it was asked."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))

        class Url(str):
            repo_id = "me/shapes"

        return Url("https://hub.test/me/shapes")

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return filename in self.files

    def upload_folder(self, *, folder_path: str, ignore_patterns: list[str] | None, **options: Any) -> None:
        self.calls.append(("upload_folder", options))
        for path in Path(folder_path).iterdir():
            if path.name not in (ignore_patterns or []):
                self.files[path.name] = path.read_text(errors="replace")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], _Hub]:
    import huggingface_hub

    def install(files: dict[str, str]) -> _Hub:
        made = _Hub(files)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: made)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
        return made

    return install


def test_a_folder_is_uploaded_on_demand_alone(
    tmp_path: Path,
    images: Path,
    hub: Callable[[dict[str, str]], _Hub],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The token is the library's business: it stands in no file, no log and no argument."""
    caplog.set_level(logging.DEBUG)
    checkpoint = str(_checkpoint(tmp_path / "model", "timm/tinynet_e"))
    of_others = hub({})
    export_model(checkpoint, form="hf", output=tmp_path / "quiet", images=images)
    assert of_others.calls == []
    mine = hub({})
    result = export_model(checkpoint, form="hf", output=tmp_path / "out", images=images, push_to="me/shapes")
    assert result.pushed == "https://hub.test/me/shapes"
    assert mine.calls[0] == ("create_repo", {"repo_id": "me/shapes", "private": True, "exist_ok": True})
    assert set(mine.files) == {"model.safetensors", "config.json", "README.md"}
    assert json.loads(mine.files["config.json"])["label_names"] == list(CLASSES)
    assert TOKEN not in caplog.text + repr(mine.calls) + "".join(mine.files.values())


def test_a_card_of_the_repository_is_left_as_it_is(
    tmp_path: Path, images: Path, hub: Callable[[dict[str, str]], _Hub]
) -> None:
    mine = hub({"README.md": "mine"})
    checkpoint = str(_checkpoint(tmp_path / "model", "timm/tinynet_e"))
    export_model(checkpoint, form="hf", output=tmp_path / "out", images=images, push_to="me/shapes")
    assert mine.files["README.md"] == "mine" and "config.json" in mine.files


def test_an_upload_that_fails_leaves_the_folder(
    tmp_path: Path, images: Path, hub: Callable[[dict[str, str]], _Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = hub({})

    def refuse(repo_id: str, **_: Any) -> None:
        raise OSError("403 Forbidden")

    monkeypatch.setattr(mine, "create_repo", refuse)
    checkpoint = str(_checkpoint(tmp_path / "model", "timm/tinynet_e"))
    with pytest.raises(HubError, match="out is written, but it cannot be uploaded to me/shapes: 403 Forbidden"):
        export_model(checkpoint, form="hf", output=tmp_path / "out", images=images, push_to="me/shapes")
    assert (tmp_path / "out/config.json").is_file()


@pytest.mark.parametrize(
    ("repo", "token", "says"),
    [
        ("me/my/shapes", TOKEN, "--push takes a repository of the Hub, as name or owner/name"),
        ("me/shapes", None, "--push needs a login to the Hugging Face Hub"),
    ],
)
def test_what_cannot_be_uploaded_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: str, token: str | None, says: str
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    with pytest.raises((UsageError, UserError), match=says):
        export_model(str(tmp_path / "model"), form="hf", output=tmp_path / "out", push_to=repo)
    assert not list(tmp_path.iterdir())


def test_the_card_shows_class_names_as_text(tmp_path: Path, images: Path) -> None:
    checkpoint = _checkpoint(tmp_path / "model", "timm/tinynet_e")
    export_model(str(checkpoint), form="hf", output=tmp_path / "out", images=images)
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "räksmörgås" in text and "library_name: timm" in text and "license" not in text


def test_a_head_that_reads_other_tokens_is_refused(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither library's model has such a head."""
    checkpoint = _checkpoint(tmp_path / "model", "timm/test_vit3")
    classifier = load_model(checkpoint, device="cpu")
    (network,) = classifier.networks
    config = replace(network.meta.config, features="mean")
    other = replace(classifier, networks=(replace(network, meta=replace(network.meta, config=config)),))
    monkeypatch.setattr(exporting, "load_model", lambda *_, **__: other)
    for form in ("hf", "script"):
        with pytest.raises(UserError, match=r"reads other tokens \(features mean\): use --format onnx, torch or open"):
            export_model(str(checkpoint), form=form, output=tmp_path / "out", images=images)
