"""What a model does on the test split: accuracy with its interval, scores of the classes, calibration.

N test images, C classes; scores are fractions, intervals cover 95 %. Calibration after Guo et al., "On Calibration of
Modern Neural Networks" (ICML 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.codec import from_plain
from tlsearch.core.metrics import confusion_matrix
from tlsearch.results.stats.intervals import wilson_interval


@dataclass(frozen=True, kw_only=True)
class ClassEvidence:
    """One class; precision, recall and F1 are 0 where there is nothing to divide by, as in scikit-learn."""

    name: str
    images: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Before and after the division of the logits by the temperature.

    Attributes:
        temperature: Fitted on the validation images.
        ece_before: Expected calibration error, 15 bins.
        loss_before: Cross-entropy.
    """

    temperature: float
    ece_before: float
    ece_after: float
    loss_before: float
    loss_after: float


@dataclass(frozen=True, kw_only=True)
class TestEvidence:
    """The one evaluation on the test split.

    Attributes:
        accuracy_interval: Low and high end: Wilson's, which stays honest on few images and at 0 or 1.
        confusion: (C, C) counts by true and predicted class.
    """

    __test__ = False  # no test class, whatever pytest thinks of its name

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    classes: tuple[ClassEvidence, ...]
    calibration: Calibration
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> TestEvidence:
        """What ``to_json`` gave; raises ValueError for anything else."""
        return from_plain(cls, plain)


def gather_evidence(
    logits: NDArray[np.float64], labels: NDArray[np.int64], *, classes: Sequence[str], temperature: float
) -> TestEvidence:
    """Scores the predictions for the test images.

    Args:
        logits: float (N, C), as the model gives them.
        labels: int (N,).
        classes: C names.
        temperature: From the validation images.
    """
    before, after = scaled_probabilities(logits), scaled_probabilities(logits, temperature)
    predicted = logits.argmax(1)
    num = len(classes)
    confusion = confusion_matrix(predicted, labels, num)
    per_class = tuple(_class_evidence(name, confusion, place) for place, name in enumerate(classes))
    present = [one for one in per_class if one.images]
    occurring = [one for place, one in enumerate(per_class) if one.images or confusion[:, place].any()]
    accuracy = float((predicted == labels).mean())
    interval = wilson_interval(accuracy, len(labels))
    return TestEvidence(
        num_images=len(labels),
        accuracy=accuracy,
        accuracy_interval=(interval.low, interval.high),
        balanced_accuracy=float(np.mean([one.recall for one in present])),
        macro_f1=float(np.mean([one.f1 for one in occurring])),
        classes=per_class,
        calibration=Calibration(
            temperature=temperature,
            ece_before=expected_calibration_error(before, labels),
            ece_after=expected_calibration_error(after, labels),
            loss_before=cross_entropy(before, labels),
            loss_after=cross_entropy(after, labels),
        ),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _class_evidence(name: str, confusion: NDArray[np.int64], place: int) -> ClassEvidence:
    hits = int(confusion[place, place])
    images, said = int(confusion[place].sum()), int(confusion[:, place].sum())
    return ClassEvidence(
        name=name,
        images=images,
        precision=hits / said if said else 0.0,
        recall=hits / images if images else 0.0,
        f1=2 * hits / (images + said) if images + said else 0.0,
    )


NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_STEPS = 60

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def scaled_probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """softmax(logits / temperature): float (N, C)."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    probabilities: Floats = powers / powers.sum(1, keepdims=True)
    return probabilities


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature with the smallest cross-entropy; the order of the classes stays as it is.

    The cross-entropy is convex in 1/T, so its slope is bisected.

    Args:
        logits: float (N, C), of images that the model was not trained on.
        labels: int (N,).

    Returns:
        A temperature in [MIN_TEMPERATURE, MAX_TEMPERATURE]; at an end where no finite one is best, as for a
        model without a mistake.
    """
    rows = np.arange(len(labels))
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        expected = (scaled_probabilities(logits, 1 / middle) * logits).sum(1)
        if float((expected - logits[rows, labels]).mean()) > 0:  # too sharp
            high = middle
        else:
            low = middle
    return float(1 / np.sqrt(low * high))


def expected_calibration_error(probabilities: Floats, labels: Labels, num_bins: int = NUM_BINS) -> float:
    """Mean distance of confidence and accuracy over bins of equal width, weighted by their images.

    A bin holds confidences in (k / num_bins, (k + 1) / num_bins].
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def cross_entropy(probabilities: Floats, labels: Labels) -> float:
    """Mean negative logarithm of the true class's probability."""
    chosen = probabilities[np.arange(len(labels)), labels]
    # The logarithm of 1 negated is -0.0, which would be printed.
    return abs(float(np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean()))
