"""How well probabilities match reality: the temperature of a model's logits, calibration error, cross-entropy.

N images, C classes. Guo et al., "On calibration of modern neural networks" (2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import DEFAULT_TASK, TASKS, task_of

NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_STEPS = 60

Floats = NDArray[np.float64]
Labels = NDArray[Any]


def scaled_probabilities(logits: Floats, temperature: float = 1.0) -> Floats:
    """softmax(logits / temperature): float (N, C)."""
    return TASKS[DEFAULT_TASK].probabilities(logits / temperature)


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature with the smallest cross-entropy, one for all classes; their order stays as it is.

    The cross-entropy is convex in 1/T, so its slope is bisected.

    Args:
        logits: float (N, C), of images that the model was not trained on.
        labels: int (N,), or float (N, C) of 0 and 1.

    Returns:
        A temperature in [MIN_TEMPERATURE, MAX_TEMPERATURE]; at an end where no finite one is best, as for a
        model without a mistake.
    """
    task = task_of(labels)
    true = task.indicators(labels, logits.shape[1])
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        slope = (task.probabilities(logits * middle) - true) * logits
        if float(slope.sum(1).mean()) > 0:  # too sharp
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
