"""OpenVINO's own files: model.xml and model.bin, with labels and preprocessing in model.json beside them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlsearch.core.errors import UserError
from tlsearch.results.export import onnx
from tlsearch.results.export.base import Run, description
from tlsearch.results.inference.predictor import Classifier

GRAPH, CONFIG = "model.xml", "model.json"
# OpenVINO computes in bf16 by default where the CPU can, which moves logits by a hundredth.
_FULL = {"INFERENCE_PRECISION_HINT": "f32"}


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UserError("exporting to OpenVINO needs the package openvino: pip install 'tlsearch[openvino]'") from error
    return openvino


def write(classifier: Classifier, folder: Path) -> None:
    """Writes the model with a dynamic batch, its weights in fp32, into a new folder.

    It is read from an ONNX file, whose names of inputs and outputs it keeps: ``openvino.convert_model`` traces a module
    by TorchScript, which torch has deprecated, and reports its use.

    Raises:
        UserError: The extra ``openvino`` is not installed.
    """
    openvino = _import_openvino()
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.write(classifier, path)
        model = openvino.Core().read_model(str(path))
        openvino.save_model(model, str(folder / GRAPH), compress_to_fp16=False)
        del model  # it reads its weights from the ONNX file
    config = {**description(classifier), "cpu_properties": _FULL}
    (folder / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


def open_model(folder: Path) -> Run:
    """Runs the files on the CPU in fp32, with as many threads as torch has."""
    properties = {**_FULL, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = _import_openvino().Core().compile_model(str(folder / GRAPH), "CPU", properties)

    def run(*images: Tensor) -> tuple[Tensor, Tensor]:
        found = compiled([one.numpy() for one in images])
        logits, scores = (torch.from_numpy(found[compiled.output(name)].copy()) for name in ("logits", "scores"))
        return logits, scores

    return run
