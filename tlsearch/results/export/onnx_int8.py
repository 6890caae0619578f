"""An ONNX file in 8-bit integers: static quantization on training images, and what it costs on validation images.

N images, C classes. Weights are quantized by channel, activations by the range that they have on the calibration images
(Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tlsearch.core.errors import UserError
from tlsearch.data import ImageIndex, read_image
from tlsearch.results.export.base import Run, batches_of, expected_outputs, prepared_images, spread
from tlsearch.results.export.onnx import open_model, quiet
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.inference.predictor import Classifier
from tlsearch.results.stats.intervals import PairedTest, compare_paired

CALIBRATION_IMAGES = 256
# What holds weights, and what stands between. Softmax, normalisation, activation functions and sums stay in fp32: they
# are a small part of the time, and 256 levels are too few for the few large values of a transformer's residual stream.
_OPERATORS = ("Conv", "Gemm", "MatMul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True, kw_only=True)
class Int8Test:
    """What 8-bit integers cost, on the same validation images.

    Attributes:
        calibration_images: Of the train split, whose activations gave the ranges.
        accuracy: Fraction of the images of which all answers are right, by the quantized model; ``float_accuracy`` is
            the model's.
        rightness: What that is called for the task of the model.
        metric: The task's default metric, ``value`` of the quantized model and ``float_value`` of the model.
        same_labels: Images with the same answers of both.
        test: Of the quantized model (A) against the model (B): McNemar's, on ``accuracy``.
        size_bytes: Of the file; ``float_bytes`` is that of the file in fp32.
    """

    calibration_images: int
    accuracy: float
    float_accuracy: float
    rightness: str
    metric: str
    value: float
    float_value: float
    same_labels: int
    test: PairedTest
    size_bytes: int
    float_bytes: int


def quantize(classifier: Classifier, index: ImageIndex, source: Path, target: Path) -> Int8Test:
    """Writes an exported ONNX file in 8-bit integers, and tests it on all validation images.

    Test images are never opened.

    Args:
        index: The images that the model was trained with.
        source: The file in fp32, of the same model.
        target: The file to write.

    Raises:
        DataError: The classes are not the model's, or an image cannot be read.
        UserError: ONNX Runtime cannot quantize the model.
    """
    check_classes(classifier.classes, index.classes)
    keys = spread(index.split("train").keys, CALIBRATION_IMAGES)
    _write(source, target, _pixels(classifier, index, keys))
    run = open_model(target)
    pairs = [_logits(classifier, run, images) for images in _pixels(classifier, index, index.split("val").keys)]
    ours, theirs = (np.concatenate(parts).astype(float) for parts in zip(*pairs, strict=True))
    task, truth = classifier.task, index.label_array("val")
    said, float_said = (task.answers(logits, classifier.raw_thresholds) for logits in (ours, theirs))
    right, float_right = task.same(said, truth), task.same(float_said, truth)
    metric = task.metrics[task.default_metric]
    return Int8Test(
        calibration_images=len(keys),
        accuracy=float(right.mean()),
        float_accuracy=float(float_right.mean()),
        rightness=task.rightness,
        metric=metric.name,
        value=metric.value(ours, truth),
        float_value=metric.value(theirs, truth),
        same_labels=int(task.same(said, float_said).sum()),
        test=compare_paired(right, float_right),
        size_bytes=target.stat().st_size,
        float_bytes=source.stat().st_size,
    )


def _pixels(classifier: Classifier, index: ImageIndex, keys: Sequence[str]) -> Iterator[Sequence[Tensor]]:
    """Normalised pixels for each input, in batches that fit into memory whatever the number of images."""
    for part in batches_of(keys):
        yield prepared_images(classifier, [read_image(index, key, pixels=classifier.pixels) for key in part])


def _logits(classifier: Classifier, run: Run, images: Sequence[Tensor]) -> tuple[Any, Any]:
    """float (B, C): of the quantized model, and of the model."""
    return run(*images)[0].numpy(), expected_outputs(classifier, images)[0].numpy()


class _Calibration:
    """The batches as ``onnxruntime.quantization`` asks for them; its CalibrationDataReader is any class like this."""

    def __init__(self, names: Sequence[str], batches: Iterator[Sequence[Tensor]]) -> None:
        self._names = names
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by input; None at the end."""
        images = next(self._batches, None)
        return None if images is None else {n: one.numpy() for n, one in zip(self._names, images, strict=True)}


def _write(source: Path, target: Path, batches: Iterator[Sequence[Tensor]]) -> None:
    import onnx
    from onnxruntime import quantization

    proto = onnx.load(str(source))
    names = [one.name for one in proto.graph.input]
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch, quiet():
            prepared = Path(scratch) / "prepared.onnx"
            # Shapes that depend on the batch are left open: nothing here needs them.
            quantization.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(target),
                _Calibration(names, batches),
                op_types_to_quantize=list(_OPERATORS),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},  # attention multiplies two activations
            )
    except UserError:
        raise  # an image that cannot be read
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(f"ONNX Runtime cannot quantize this model: {error}") from error
    quantized = onnx.load(str(target))
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(proto.metadata_props)
    onnx.save_model(quantized, str(target))
