"""ONNX: one file with a dynamic batch, labels and preprocessing in its metadata."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlsearch.core.errors import UserError
from tlsearch.results.export.base import Exported, Run, description, dynamic_batch, example_inputs, input_names
from tlsearch.results.inference.predictor import Classifier

_MAX_BYTES = 2_000_000_000


def _import_onnx() -> Any:
    """onnxruntime, with onnx and onnxscript at hand.

    Raises:
        UserError: One of them is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting to ONNX needs onnx, onnxruntime and onnxscript ({error}): pip install 'tlsearch[export]'"
        ) from error
    return onnxruntime


def write(classifier: Classifier, path: Path) -> None:
    """Writes the model with all its weights into one file.

    Raises:
        UserError: The extra ``export`` is not installed.
    """
    _import_onnx()
    import onnx

    with quiet():
        program: Any = torch.onnx.export(
            Exported(classifier).eval(),
            example_inputs(classifier),
            dynamo=True,
            input_names=list(input_names(classifier)),
            output_names=["logits", "scores"],
            dynamic_shapes=dynamic_batch(classifier),
            verbose=False,
        )
    proto = program.model_proto
    for key, value in description(classifier).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    if proto.ByteSize() > _MAX_BYTES:
        raise UserError("an ONNX file holds at most 2 GB and this model is larger: use --format torch or script")
    onnx.save_model(proto, str(path))


def open_model(path: Path) -> Run:
    """Runs the file in ONNX Runtime on the CPU, with as many threads as torch has."""
    runtime = _import_onnx()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    names = [one.name for one in session.get_inputs()]

    def run(*images: Tensor) -> tuple[Tensor, Tensor]:
        inputs = {name: one.numpy() for name, one in zip(names, images, strict=True)}
        logits, scores = session.run(["logits", "scores"], inputs)
        return torch.from_numpy(logits), torch.from_numpy(scores)

    return run


@contextlib.contextmanager
def quiet() -> Any:
    """The exporter prints its progress, and warns of versions of its own parts; the quantizer advises on the root."""
    names = ("root", "torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
