"""How sure a score is: standard errors, intervals, and the test of two models on the same images.

Accuracies are fractions of N images; intervals cover 95 % unless another level is given, and their ends are inclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import task_of
from tlsearch.core.metrics import is_share

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point
BOOTSTRAPS = 1000

LABELS = NDArray[Any]
PROBABILITIES = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A range that covers the true value with the stated confidence; both ends belong to it."""

    low: float
    high: float
    method: str


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """Two models on the same N images.

    Attributes:
        only_a: Images that A alone gets right.
        only_b: Images that B alone gets right.
        p_value: McNemar's exact test, two-sided: how likely so uneven a split is between equal models.
        difference: Accuracy of A less that of B.
        interval: Of the difference.
    """

    only_a: int
    only_b: int
    num_images: int
    p_value: float
    difference: float
    interval: Interval


def binomial_standard_error(share: float, num_images: int) -> float:
    """Standard error of a share of N images: sqrt(p (1 - p) / N)."""
    return math.sqrt(share * (1.0 - share) / num_images)


def standard_error(metric: str, value: float, num_images: int | None) -> float | None:
    """Standard error of a metric's value, where it follows from value and N; else None.

    Balanced accuracy, macro F1 and loss depend on single predictions, which only a kept model can give again.
    """
    if not is_share(metric) or not num_images or not 0.0 <= value <= 1.0:
        return None
    return binomial_standard_error(value, num_images)


def wilson_interval(share: float, num_images: int) -> Interval:
    """Wilson's interval of a share of N images; as ``scipy.stats.binomtest(...).proportion_ci("wilson")``."""
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * num_images)) / (1 + z2 / num_images)
    spread = share * (1 - share) / num_images + z2 / (4 * num_images * num_images)
    half = Z95 / (1 + z2 / num_images) * math.sqrt(spread)
    low = 0.0 if share <= 0 else max(0.0, centre - half)
    return Interval(low=low, high=1.0 if share >= 1 else min(1.0, centre + half), method="Wilson")


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p-value; as ``scipy.stats.binomtest(only_a, only_a + only_b)``.

    Args:
        only_a: Images that the first model alone gets right.
        only_b: Images that the second alone gets right.
    """
    total = only_a + only_b
    if total == 0:
        return 1.0
    # In logarithms, since a binomial coefficient of thousands is larger than any float.
    half = -total * math.log(2.0)
    tail = sum(math.exp(_log_choose(total, k) + half) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2.0 * tail)


def compare_paired(right_a: NDArray[np.bool_], right_b: NDArray[np.bool_]) -> PairedTest:
    """Compares two models on the same images.

    Args:
        right_a: bool (N,), which images the first model gets right.
        right_b: bool (N,), for the second.
    """
    num_images = len(right_a)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return PairedTest(
        only_a=only_a,
        only_b=only_b,
        num_images=num_images,
        p_value=mcnemar_exact(only_a, only_b),
        difference=(only_a - only_b) / num_images,
        interval=paired_interval(only_a, only_b, num_images),
    )


def paired_interval(only_a: int, only_b: int, num_images: int) -> Interval:
    """Of the difference of two accuracies on the same images: Wald's with half a count added to each cell.

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions" (2005).
    """
    a, b, total = only_a + 0.5, only_b + 0.5, num_images + 2.0
    centre = (a - b) / total
    half = Z95 * math.sqrt(max(a + b - (a - b) ** 2 / total, 0.0)) / total
    return Interval(low=max(-1.0, centre - half), high=min(1.0, centre + half), method="Agresti-Min")


def unpaired_interval(share_a: float, num_a: int, share_b: float, num_b: int) -> Interval:
    """Of the difference of two accuracies on images of their own: Newcombe's hybrid of two Wilson intervals.

    Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.
    """
    a, b = wilson_interval(share_a, num_a), wilson_interval(share_b, num_b)
    difference = share_a - share_b
    low = difference - math.hypot(share_a - a.low, b.high - share_b)
    high = difference + math.hypot(a.high - share_a, share_b - b.low)
    return Interval(low=low, high=high, method="Newcombe")


def bootstrap_metric(
    metric: str, probabilities: PROBABILITIES, labels: LABELS, *, num_bootstraps: int = BOOTSTRAPS
) -> tuple[float, Interval]:
    """Standard error and percentile interval of a metric, images drawn again with replacement: always the same draws.

    Args:
        metric: As ``val_macro_f1``.
        probabilities: float (N, C).
        labels: int (N,), or float (N, C) of 0 and 1.
        num_bootstraps: Number of draws of N images.
    """
    task = task_of(labels)
    one, scores = task.metrics[metric], task.scores(probabilities)
    values = np.array([one.value(scores[rows], labels[rows]) for rows in _draws(len(labels), num_bootstraps)])
    return float(values.std(ddof=1)), _percentiles(values)


def bootstrap_differences(metrics: Sequence[str], a: PROBABILITIES, b: PROBABILITIES, labels: LABELS) -> list[Interval]:
    """Percentile intervals of metrics of A less those of B, the same images drawn again with replacement for both.

    Args:
        metrics: As ``val_map``; the answer is in their order.
        a: float (N, C).
        b: float (N, C).
        labels: As of ``bootstrap_metric``, as are the draws.
    """
    task = task_of(labels)
    chosen, of_a, of_b = [task.metrics[name] for name in metrics], task.scores(a), task.scores(b)
    differences = np.array(
        [
            [one.value(of_a[rows], labels[rows]) - one.value(of_b[rows], labels[rows]) for one in chosen]
            for rows in _draws(len(labels), BOOTSTRAPS)
        ]
    )
    return [_percentiles(differences[:, place]) for place in range(len(chosen))]


def _draws(num_images: int, num_bootstraps: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return (rng.integers(0, num_images, num_images) for _ in range(num_bootstraps))


def _percentiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(low=float(low), high=float(high), method="bootstrap")


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
