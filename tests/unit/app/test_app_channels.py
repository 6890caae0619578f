"""Searches over images of other channels and of 16 bits, from the files to predictions, exports and reports."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from small_search import small_search
from soup_search import write_weights

from tlsearch.app.catalog.catalog import RESOLVED, SearchEntry
from tlsearch.app.catalog.space_diff import differences, file_now
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.checks.check_file import check_file
from tlsearch.app.production.export_model import export_model
from tlsearch.app.views.report import write_search_report
from tlsearch.config import as_tree
from tlsearch.core.errors import DataError, UserError
from tlsearch.core.types import RGB8, PixelFormat
from tlsearch.data import load_index
from tlsearch.results import load_model, predict

CLASSES = ("high", "low", "middle")
COUNTS = {"train": 12, "val": 10, "test": 4}
SPACE = """
name: channels
data: {{source: folder, path: ./images, image_size: 32{data}}}
weights: {{mobilenet_v3_small: ./weights.pth}}
space: {{backbone: mobilenet_v3_small, unfreeze_depth: [0, 5], head_lr: 1.0e-2, augmentation: [none, strong]}}
search:
  trials: 2
  max_epochs: 2
  scheduler: none
  sampler: fixed
  start_with: [{{}}, {{unfreeze_depth: 5, augmentation: strong, backbone_lr: 1.0e-4}}]
"""


def _values(place: int, rng: np.random.Generator, channels: int) -> NDArray[np.uint16]:
    """Values within 200 of 65,536: a box that is brighter by its class, in all channels but the last."""
    pixels = 30_000 + rng.integers(0, 40, (36, 40, channels))
    pixels[8:28, 8:28, : max(1, channels - 1)] += 70 * place
    return pixels.astype(np.uint16)


def write_images(root: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for place, label in enumerate(CLASSES):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                values, file = _values(place, rng, channels), root / split / label / f"{number:02d}"
                if channels == 1:
                    Image.fromarray(values[..., 0]).save(file.with_suffix(".png"))
                else:
                    np.save(file.with_suffix(".npy"), values)


def _search(root: Path, channels: int, data: str = "") -> Iterator[SearchEntry]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        if not (root / "images").exists():
            write_images(root / "images", channels)
        write_weights(root / "weights.pth")
        yield small_search(root, name=f"of-{channels}{'-8' if data else ''}", space=SPACE.format(data=data))


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchEntry]:
    """Five channels of 16 bits."""
    yield from _search(tmp_path_factory.mktemp("five"), 5)


def _files(entry: SearchEntry, split: str = "val") -> list[Path]:
    return sorted((entry.path.parents[1] / "images" / split).rglob("*.*"))


def _best(entry: SearchEntry) -> float:
    return max(trial.best_value for trial in read_record(entry).trials if trial.best_value is not None)


def test_both_trials_learn_and_the_search_keeps_what_its_images_are(entry: SearchEntry) -> None:
    assert [trial.reason for trial in read_record(entry).trials] == ["completed"] * 2
    assert _best(entry) > 0.8
    file, _ = stored_file(entry, "")
    assert file.data.pixel_format == PixelFormat(channels=5, bits=16)
    assert file.data.mean is not None and all(0.45 < one < 0.47 for one in file.data.mean)
    assert differences(file, file_now(entry, file)[0]) == []
    assert load_index(file.data).pixels == file.data.pixel_format


def test_a_changed_word_on_channels_is_a_change(entry: SearchEntry) -> None:
    file, _ = stored_file(entry, "")
    other = replace(file, data=replace(file.data, channels=4))
    assert [one.dotted for one in differences(file, other)] == ["data.channels"]


@pytest.mark.parametrize("number", [0, 1])
def test_predictions_are_the_trial_s_own(entry: SearchEntry, number: int) -> None:
    model = load_model(entry.path / "trials" / str(number), device="cpu")
    assert model.pixels == PixelFormat(channels=5, bits=16)
    files = _files(entry)
    said = predict(model, files)
    right = np.mean([one.label == Path(one.path).parent.name for one in said])
    trial = read_record(entry).trials[number]
    assert right == pytest.approx(trial.best_value)
    of_arrays = predict(model, [np.load(one) for one in files[:3]])
    of_bytes = predict(model, [one.read_bytes() for one in files[:3]])
    assert of_bytes == [replace(one, path=f"image {n}") for n, one in enumerate(predict(model, files[:3]))]
    assert of_arrays == of_bytes


def test_an_image_of_other_channels_has_no_prediction(entry: SearchEntry, tmp_path: Path) -> None:
    model = load_model(entry.path / "trials" / "0", device="cpu")
    Image.new("RGB", (20, 20)).save(tmp_path / "photo.png")
    words = "photo.png: has 3 channels of 8 bits; this data set and its models take 5 channels of 16 bits"
    with pytest.raises(DataError, match=words):
        predict(model, [tmp_path / "photo.png"])
    with pytest.raises(DataError, match="image 0: has 4 channels of 16 bits"):
        predict(model, [np.zeros((20, 20, 4), dtype=np.uint16)])
    with pytest.raises(DataError, match="image 0: values of the type float64 have no fixed range"):
        predict(model, [np.zeros((20, 20, 5))])


def test_the_served_model_takes_arrays(entry: SearchEntry) -> None:
    pytest.importorskip("mlflow")
    from types import SimpleNamespace

    from tlsearch.results.inference.mlflow_model import ARTIFACT, ServedClassifier

    model, files = ServedClassifier(), _files(entry)[:2]
    folder = entry.path / "trials" / "0" / "best"
    model.load_context(SimpleNamespace(artifacts={ARTIFACT: str(folder)}))  # type: ignore[arg-type]
    texts = [base64.b64encode(one.read_bytes()).decode() for one in files]
    answers = model.predict(None, texts)  # type: ignore[arg-type]
    assert [one["label"] for one in answers] == [one.label for one in predict(load_model(folder), files)]


@pytest.mark.parametrize(
    ("form", "package"),
    [
        pytest.param("onnx", "onnxruntime", marks=pytest.mark.slow),  # as arrays of images with several classes
        ("hf", "timm"),
        pytest.param("torch", "torch", marks=pytest.mark.slow),
        pytest.param("openvino", "openvino", marks=pytest.mark.slow),
    ],
)
def test_exports_take_five_channels(entry: SearchEntry, tmp_path: Path, form: str, package: str) -> None:
    pytest.importorskip(package, reason="an optional extra")
    model = str(entry.path / "trials" / "1")
    found = export_model(model, form=form, output=tmp_path / "out", images=_files(entry)[0].parent)
    assert found.parity.real and found.parity.logits <= 1e-3
    if form == "onnx":
        import onnx

        proto = onnx.load(str(tmp_path / "out"))
        shape = proto.graph.input[0].type.tensor_type.shape.dim
        assert [one.dim_value for one in shape][1:] == [5, 32, 32]
        steps = json.loads({one.key: one.value for one in proto.metadata_props}["preprocessing"])
        assert "divide by 65535" in steps["steps"] and steps["bits"] == 16 and len(steps["mean"]) == 5
    if form == "hf":
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["pretrained_cfg"]["input_size"] == [5, 32, 32] and config["model_args"]["in_chans"] == 5
        assert "5 channels of 16 bits" in (tmp_path / "out" / "README.md").read_text()


def test_a_format_that_reads_rgb_says_so(entry: SearchEntry, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="this format reads RGB images of 8 bits, and this model takes 5 channels of 16 bits"
    ):
        export_model(str(entry.path / "trials" / "0"), form="script", output=tmp_path / "out")


def test_the_report_has_pictures(entry: SearchEntry, tmp_path: Path) -> None:
    found = write_search_report(entry, directory=tmp_path, with_importance=False, with_latency=True, log=False)
    assert found.page.stat().st_size > 10_000


def test_check_shows_channels_and_refuses_a_mixture(entry: SearchEntry) -> None:
    root = entry.path.parents[1]
    report = check_file(root / "space.yaml")
    assert report.ok and report.data is not None
    assert (report.data.channels, report.data.bits) == (5, 16)
    rgb = check_file(root / "space.yaml", overrides=("data.channels=3", "data.bits=8"))
    assert not rgb.ok and "has 5 channels of 16 bits" in rgb.problems[0].message
    Image.new("RGB", (20, 20)).save(root / "images/train/low/photo.png")
    try:
        mixed = check_file(root / "space.yaml", with_model=False)
    finally:
        (root / "images/train/low/photo.png").unlink()
    (problem,) = mixed.problems
    assert "3 channels of 8 bits: 1 (" in problem.message and "5 channels of 16 bits: 66 (" in problem.message


def test_8_bits_lose_what_16_bits_hold(tmp_path: Path) -> None:
    """Grey PNG of 16 bits whose values use 1/300 of the range; as RGB of 8 bits all are one level."""
    values: dict[str, float] = {}
    for name, data in (("16", ""), ("8", ", channels: 3, bits: 8")):
        for entry in _search(tmp_path, 1, data):
            values[name] = _best(entry)
            pixels = stored_file(entry, "")[0].data.pixel_format
            assert pixels == (RGB8 if data else PixelFormat(channels=1, bits=16))
    assert values["16"] > 0.8 and values["8"] < 0.5


def test_the_file_of_an_ordinary_search_says_what_it_said(tmp_path: Path) -> None:
    entry = small_search(tmp_path)
    tree: dict[str, Any] = as_tree(stored_file(entry, "")[0])["data"]
    assert {name: tree[name] for name in ("channels", "bits", "mean", "std")} == {
        "channels": "auto",
        "bits": "auto",
        "mean": None,
        "std": None,
    }
    text = (entry.path / RESOLVED).read_text()
    older = "\n".join(line for line in text.splitlines() if line.strip().split(":")[0] not in ("channels", "bits"))
    (entry.path / RESOLVED).write_text(older.replace("  mean: null\n", "").replace("  std: null\n", ""))
    assert stored_file(entry, "")[0].data.pixel_format == RGB8  # of a search of an earlier version
    assert (entry.path / "trials/0/best/checkpoint.json").read_text().count('"bits"') == 0
