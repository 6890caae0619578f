"""The scores of an ensemble in numpy, as a reference for the model and for the selection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tlsearch.results.stats.calibration import scaled_probabilities

Floats = NDArray[np.float64]


def average_scores(logits: Floats, temperatures: Sequence[float], counts: Sequence[int]) -> Floats:
    """The scores of an ensemble: logarithms of the weighted mean of its members' probabilities, float (N, C).

    Args:
        logits: float (M, N, C), of M members.
        temperatures: M.
        counts: M; weights are counts over their sum.
    """
    weights = np.asarray(counts, dtype=np.float64) / sum(counts)
    mean = sum(w * scaled_probabilities(one, t) for w, one, t in zip(weights, logits, temperatures, strict=True))
    scores: Floats = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    return scores
