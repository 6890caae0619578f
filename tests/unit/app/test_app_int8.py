"""``export --int8``: calibrated on training images, tested on validation images, and on no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from opens import opens_below
from small_search import COUNTS

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.production.export_model import ExportedModel, export_model
from tlsearch.core.errors import DataError, UsageError
from tlsearch.core.types import DataSpec
from tlsearch.data import load_index
from tlsearch.results import load_model
from tlsearch.results.export import onnx_int8
from tlsearch.results.stats.intervals import mcnemar_exact

onnx = pytest.importorskip("onnx", reason="an optional extra")
pytest.importorskip("onnxruntime", reason="an optional extra")
NUM_VAL = 3 * COUNTS["val"]


@pytest.fixture(autouse=True)
def home(ended_search: SearchEntry) -> Path:
    return ended_search.path.parents[1]


def _export(output: Path, model: str = "small:2", **options: bool) -> ExportedModel:
    return export_model(model, form="onnx", output=output, int8=True, **options)


def test_a_quantized_file_is_small_described_and_tested(home: Path, tmp_path: Path) -> None:
    with opens_below(home / "images") as opened:
        result = _export(tmp_path / "out.onnx")
    assert {name.partition("/")[0] for name in opened} == {"train", "val"}
    found = result.int8
    assert found is not None and result.parity.logits <= 1e-3  # of the file in fp32
    assert found.calibration_images == 3 * COUNTS["train"]
    test = found.test
    assert test.num_images == NUM_VAL
    assert test.p_value == mcnemar_exact(test.only_a, test.only_b)
    assert found.accuracy - found.float_accuracy == pytest.approx(test.difference)
    assert found.same_labels >= NUM_VAL - 4
    assert found.size_bytes == (tmp_path / "out.onnx").stat().st_size < 0.4 * found.float_bytes
    assert [one.format for one in result.latency] == ["model", "onnx", "onnx int8"]
    _assert_described(tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tlsearch")] == []


def _assert_described(path: Path) -> None:
    proto = onnx.load(str(path))
    metadata = {one.key: one.value for one in proto.metadata_props}
    assert json.loads(metadata["labels"]) == ["circle", "square", "stripe"]
    assert any(one.op_type == "DequantizeLinear" for one in proto.graph.node)


def test_the_test_compares_the_file_with_the_model(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is always right is convincingly better than a model of two epochs."""
    best = home / "tlsearch_runs/small/trials/0/best"
    index = load_index(DataSpec(source="folder", path=str(home / "images")))
    answers = iter(torch.eye(3)[list(index.splits["val"].labels)])

    def right(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.stack([next(answers) for _ in images])
        return logits, logits

    monkeypatch.setattr(onnx_int8, "_write", lambda source, target, batches: target.write_bytes(b"small"))
    monkeypatch.setattr(onnx_int8, "open_model", lambda path: right)
    (tmp_path / "source").write_bytes(b"larger file")
    classifier = load_model(best, device="cpu")
    found = onnx_int8.quantize(classifier, index, tmp_path / "source", tmp_path / "target")
    assert found.accuracy == 1.0 and found.float_accuracy < 0.8
    assert found.same_labels == round(found.float_accuracy * NUM_VAL)
    assert found.test.only_a == NUM_VAL - found.same_labels and found.test.p_value < 0.05
    assert (found.size_bytes, found.float_bytes) == (5, 11)


def test_a_model_without_its_search_is_refused(home: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(home / "tlsearch_runs/small/trials/0/best", alone)
    if (home / "tlsearch_runs/small/frozen").exists():
        shutil.copytree(home / "tlsearch_runs/small/frozen", tmp_path / "frozen")
    with pytest.raises(DataError, match="--int8 calibrates on the training images .* it names no search that is here"):
        _export(tmp_path / "out.onnx", str(alone))
    assert not (tmp_path / "out.onnx").exists()


def test_images_that_are_gone_or_changed_are_refused(home: Path, tmp_path: Path) -> None:
    image = next((home / "images/train/circle").iterdir())
    kept = image.read_bytes()
    try:
        shutil.copy(next((home / "images/train/square").iterdir()), image)
        with pytest.raises(DataError, match="cannot be read: the images have changed since the search began"):
            _export(tmp_path / "out.onnx")
    finally:
        image.write_bytes(kept)
    shutil.move(home / "images", home / "elsewhere")
    try:
        with pytest.raises(DataError, match="--int8 calibrates on the training images"):
            _export(tmp_path / "out.onnx")
    finally:
        shutil.move(home / "elsewhere", home / "images")


def test_other_formats_take_no_int8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--int8 belongs to the format onnx, not to torch"):
        export_model("small:0", form="torch", output=tmp_path / "out", int8=True)
