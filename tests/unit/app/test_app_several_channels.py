"""Images with any number of classes and of other channels: grey, arrays of five channels, TIFF of 16 bits."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score
from small_search import small_search
from soup_search import write_weights

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.checks.check_file import check_file
from tlsearch.app.combined.make_ensemble import make_ensemble
from tlsearch.app.init.write_space import InitOptions, init_space
from tlsearch.app.production.export_model import export_model
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.views.report import write_search_report
from tlsearch.core.types import PixelFormat
from tlsearch.data import load_index
from tlsearch.results import load_model, logits_on, predict
from tlsearch.results.inference.mlflow_model import ARTIFACT, ServedClassifier
from tlsearch.space import load

BANDS = ("bottom", "middle", "top")  # the part of an image that is brighter, one for each class
COUNTS = {"train": 24, "val": 16, "test": 8}
KINDS = {"grey": (1, 8, "png"), "arrays": (5, 16, "npy"), "tiff": (4, 16, "tif")}
SPACE = """
name: bands
data: {{source: manifest, path: ./images/table.csv, image_size: 32, task: multi_label{channels}}}
weights: {{mobilenet_v3_small: ./weights.pth}}
space:
  backbone: mobilenet_v3_small
  unfreeze_depth: [0, 5]
  head: [linear, ridge]
  head_lr: 1.0e-2
  augmentation: [none, strong]
search:
  trials: 2
  max_epochs: 2
  scheduler: none
  sampler: fixed
  start_with: [{{head: ridge}}, {{unfreeze_depth: 5, augmentation: strong, backbone_lr: 1.0e-4}}]
"""


def _values(split: str, number: int, channels: int, bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    rng = np.random.default_rng([len(split), number])
    top = 255 if bits == 8 else 4095  # a camera of 12 bits
    values = rng.integers(0, top // 3, (36, 36, channels))
    for place in range(len(BANDS)):
        if (number >> place) & 1:
            values[12 * place : 12 * place + 12] += top // 2
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def _write(root: Path, channels: int, bits: int, suffix: str) -> None:
    root.mkdir(parents=True)
    lines = ["path,label,split"]
    for split, count in COUNTS.items():
        for number in range(count):
            file = root / f"{split}-{number:02d}.{suffix}"
            values = _values(split, number, channels, bits)
            if suffix == "npy":
                np.save(file, values)
            elif suffix == "tif":
                tifffile = pytest.importorskip("tifffile", reason="an optional extra")
                tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
            else:
                Image.fromarray(values[..., 0]).save(file)
            lines.append(f"{file.name},{'|'.join(sorted(_truth(number)))},{split}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")


def _truth(number: int) -> set[str]:
    return {name for place, name in enumerate(reversed(BANDS)) if (number >> place) & 1}


@pytest.fixture(scope="module", params=list(KINDS))
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchEntry]:
    channels, bits, suffix = KINDS[request.param]
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        _write(root / "images", channels, bits, suffix)
        write_weights(root / "weights.pth")
        asked = ", channels: 1" if channels == 1 else ""
        yield small_search(root, name=request.param, space=SPACE.format(channels=asked))


@pytest.fixture(autouse=True)
def _own_folders(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    root = entry.path.parents[1]
    monkeypatch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))


def _pixels(entry: SearchEntry) -> PixelFormat:
    channels, bits, _ = KINDS[entry.search_id]
    return PixelFormat(channels=channels, bits=bits)


def _files(entry: SearchEntry, split: str) -> list[Path]:
    return sorted((entry.path.parents[1] / "images").glob(f"{split}-*"))


def test_both_trials_learn_and_predictions_are_the_trial_s_own(entry: SearchEntry) -> None:
    trials = read_record(entry).trials
    assert [trial.reason for trial in trials] == ["completed"] * 2
    file, _ = stored_file(entry, "")
    assert file.data.pixel_format == _pixels(entry) and file.data.mean is not None
    index = load_index(file.data)
    for trial in trials:
        model = load_model(entry.path / "trials" / str(trial.number), device="cpu")
        assert model.pixels == _pixels(entry) and len(model.thresholds) == 3
        logits, labels = logits_on(model, index, "val").double().numpy(), index.label_array("val")
        assert average_precision_score(labels, logits, average="macro") == pytest.approx(trial.best_value, abs=1e-4)
        files = [entry.path.parents[1] / "images" / key for key in index.split("val").keys]
        said = [{one.label for one in answer.labels} for answer in predict(model, files)]
        limits = np.array(model.raw_thresholds)
        above = 1 / (1 + np.exp(-logits)) > limits
        assert said == [{name for name, yes in zip(BANDS, row, strict=True) if yes} for row in above]
    assert max(trial.best_value or 0.0 for trial in trials) > 0.8
    assert {frozenset(_truth(number)) for number in range(8)} == {
        frozenset(name for name, yes in zip(BANDS, row, strict=True) if yes) for row in index.label_array("val")
    }


@pytest.mark.parametrize("entry", ["arrays", "grey", pytest.param("tiff", marks=pytest.mark.slow)], indirect=True)
def test_they_go_on_to_report_ensemble_promotion_and_serving(entry: SearchEntry, tmp_path: Path) -> None:
    found = write_search_report(entry, directory=tmp_path / "report", with_importance=False, log=False)
    assert "Average precision by class" in found.page.read_text() and "model" not in found.skipped
    assert make_ensemble(entry).metric == "val_map"
    if entry.search_id == "arrays":  # once: MLflow takes seconds
        result = promote(entry, PromoteOptions())
        assert result.test is not None and result.test.headline.name == "map"
        assert "any number of the 3 classes" in result.card and "5 channels of 16 bits" in result.card
    served, files = ServedClassifier(), _files(entry, "val")[:3]
    folder = entry.path / "trials" / "0" / "best"
    served.load_context(SimpleNamespace(artifacts={ARTIFACT: str(folder)}))  # type: ignore[arg-type]
    texts = [base64.b64encode(one.read_bytes()).decode() for one in files]
    answers = served.predict(None, texts)  # type: ignore[arg-type]
    expected = predict(load_model(folder), files)
    assert [[each["label"] for each in one["labels"]] for one in answers] == [
        [each.label for each in one.labels] for one in expected
    ]


@pytest.mark.parametrize(
    "entry",
    ["arrays", pytest.param("grey", marks=pytest.mark.slow), pytest.param("tiff", marks=pytest.mark.slow)],
    indirect=True,
)
def test_an_exported_file_takes_the_channels_and_names_the_thresholds(entry: SearchEntry, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    found = export_model(f"{entry.search_id}:1", form="onnx", output=tmp_path / "m.onnx", int8=True)
    assert found.parity.real and found.parity.scores < 1e-4
    assert found.int8 is not None and found.int8.test.num_images == COUNTS["val"]
    proto = onnx.load(str(tmp_path / "m.onnx"))
    assert [one.dim_value for one in proto.graph.input[0].type.tensor_type.shape.dim][1] == _pixels(entry).channels
    assert "thresholds" in {one.key for one in proto.metadata_props}


def test_a_table_that_mixes_channels_is_refused_with_the_number_of_each(entry: SearchEntry) -> None:
    root = entry.path.parents[1]
    table, photo = root / "images/table.csv", root / "images/photo.jpg"
    before, rows = table.read_text(), sum(count for split, count in COUNTS.items() if split != "test")
    Image.new("RGB", (20, 20)).save(photo)
    table.write_text(before + "photo.jpg,top|middle,train\n")
    try:
        report = check_file(root / "space.yaml", with_model=False)
    finally:
        table.write_text(before)
        photo.unlink()
    (problem,) = report.problems
    assert f"{_pixels(entry)}: {rows} (" in problem.message and "3 channels of 8 bits: 1 (" in problem.message
    assert "photo.jpg" in problem.message and "convert or remove some" in problem.message


def test_init_writes_a_file_that_reads_them(entry: SearchEntry, tmp_path: Path) -> None:
    table = entry.path.parents[1] / "images/table.csv"
    written = init_space(InitOptions(data=str(table), output=tmp_path / "space.yaml", weights=()))
    file, _ = load(written.path)
    assert file.data.task == "multi_label"
    report = check_file(written.path, with_model=False)
    assert report.data is not None and not report.problems
    if _pixels(entry).bits == 16:  # grey pictures of 8 bits are RGB, unless data.channels says 1
        assert (report.data.channels, report.data.bits) == (_pixels(entry).channels, 16)
