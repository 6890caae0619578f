"""Labels that predictions contradict: confident learning, and predictions for images by leaving each one out.

Only out-of-sample predictions may judge a label: a model that was trained on a wrong label repeats it. Northcutt et
al., "Confident learning: estimating uncertainty in dataset labels" (2021).

N images, C classes, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlsearch.results.stats.calibration import fit_temperature, scaled_probabilities

_PENALTIES = tuple(10.0**power for power in range(-5, 2))  # over the sum of the squared features
_SHARPNESS = 10.0  # of scores whose targets are 0 and 1, so that temperatures are near 1

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Contradiction:
    """An image whose label the predictions contradict.

    Attributes:
        row: Of the image.
        suggested: The class that the predictions are confident of.
        confidence: Its probability.
        label_probability: Of the label: what contradictions are ranked by, the least probable first.
    """

    row: int
    suggested: int
    confidence: float
    label_probability: float


def contradictions(probabilities: Floats, labels: Labels) -> list[Contradiction]:
    """The images that are confidently of another class than their label, those of the least probable label first.

    An image counts as confidently of class j where its probability of j is at least the mean probability of j over
    the images labelled j; of several such classes the most probable one. So a class that models know badly, or that
    they like too much, has a threshold of its own.

    Args:
        probabilities: float (N, C), of models that have not been trained on the image in question.
        labels: int (N,).
    """
    num = len(labels)
    if num == 0:
        return []
    own = probabilities[np.arange(num), labels]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(1)
    found = np.flatnonzero((confident.max(1) >= 0) & (suggested != labels))
    return [
        Contradiction(
            row=int(row),
            suggested=int(suggested[row]),
            confidence=float(probabilities[row, suggested[row]]),
            label_probability=float(own[row]),
        )
        for row in found[np.argsort(own[found], kind="stable")]
        if probabilities[row, suggested[row]] > own[row]
    ]


def leave_one_out(rows: NDArray[np.floating], labels: Labels, num_classes: int) -> Floats:
    """Probabilities for each image by a linear head that is fitted to all others: float (N, C).

    The head is ridge regression on the features, whose fit without an image follows from the fit with it in closed
    form: its residual without the image is the residual over 1 - h, h being the image's leverage. The penalty has the
    smallest such squared error, and a temperature makes probabilities of the scores.

    Args:
        rows: float (N, F), features that no label was used for.
        labels: int (N,), each in [0, C).
    """
    num = len(labels)
    centred = np.asarray(rows - rows.mean(0), dtype=np.float64)
    basis, squares = _left_basis(centred)
    targets = np.eye(num_classes)[labels]
    along = basis.T @ targets
    best: tuple[float, Floats] | None = None
    for penalty in _PENALTIES:
        kept = squares / (squares + penalty * squares.sum())
        leverage = np.square(basis) @ kept + 1 / num
        residuals = (targets - targets.mean(0) - (basis * kept) @ along) / np.maximum(1 - leverage, 1e-6)[:, None]
        error = float(np.square(residuals).mean())
        if best is None or error < best[0]:
            best = error, targets - residuals
    assert best is not None
    scores = _SHARPNESS * best[1]
    return scaled_probabilities(scores, fit_temperature(scores, labels))


def _left_basis(centred: Floats) -> tuple[Floats, Floats]:
    """Left singular vectors (N, R) and squared singular values (R,), by the smaller of the two Gram matrices."""
    num, width = centred.shape
    if num <= width:
        squares, basis = np.linalg.eigh(centred @ centred.T)
        keep = squares > 1e-10 * squares.max(initial=0.0)
        return basis[:, keep], squares[keep]
    squares, right = np.linalg.eigh(centred.T @ centred)
    keep = squares > 1e-10 * squares.max(initial=0.0)
    return centred @ right[:, keep] / np.sqrt(squares[keep]), squares[keep]
