"""Configurations trained several times: means with intervals, and whether one is really better than another.

S seeds, N validation images. Each configuration is trained once with each seed; the seeds are the same for all, and so
are the images. Intervals cover 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from tlsearch.results.stats.intervals import Interval

ALPHA = 0.05
_NO_SPREAD = 1e-9  # of an interval: sums of equal numbers are rounded

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds; ``interval`` is None for a single seed."""

    value: float
    deviation: float
    count: int
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean difference with its test against zero.

    Attributes:
        over: ``seeds``: of these images, for other seeds; ``images``: of these trainings, for other images; ``both``.
        value: Positive where the first configuration is better.
        p_value: Two-sided.
        degrees: Degrees of freedom of the t-test.
    """

    over: str
    value: float
    interval: Interval
    p_value: float
    degrees: float

    @property
    def constant(self) -> bool:
        """Whether all differences are one number, without a spread that a test could hold the value against."""
        return self.interval.high - self.interval.low < _NO_SPREAD


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Mean, standard deviation (ddof 1) and t-interval, as ``scipy.stats.t.interval``.

    Args:
        values: S values, at least one.
    """
    count, value = len(values), float(np.mean(values))
    if count < 2:
        return Mean(value=value, deviation=0.0, count=count, interval=None)
    deviation = float(np.std(values, ddof=1))
    interval = _interval(value, deviation / math.sqrt(count), count - 1.0)
    return Mean(value=value, deviation=deviation, count=count, interval=interval)


def difference_over_seeds(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The paired t-test over seeds, as ``scipy.stats.ttest_rel``; larger values are better.

    Args:
        first: S values, at least two.
        second: S values with the same seeds.
    """
    differences = np.subtract(first, second)
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    return _test("seeds", float(differences.mean()), error, len(differences) - 1.0)


def difference_over_images(first: Values, second: Values) -> Difference:
    """The paired t-test over images of what each configuration scores on them, on average over its seeds.

    Args:
        first: float (S, N), each training's score on each image; larger is better.
        second: float (S, N), with the same seeds and images.
    """
    differences = (first - second).mean(0)
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    return _test("images", float(differences.mean()), error, len(differences) - 1.0)


def difference_over_both(first: Values, second: Values) -> Difference:
    """The test for other seeds and other images at once.

    Both variances are added, with Satterthwaite's degrees of freedom. What varies with seed and image together
    is counted in each of them, so the test is a little too careful, never too bold.

    Args:
        first: As in ``difference_over_images``; S is at least two.
        second: As above.
    """
    differences = first - second
    num_seeds, num_images = differences.shape
    by_seed = float(np.var(differences.mean(1), ddof=1)) / num_seeds
    by_image = float(np.var(differences.mean(0), ddof=1)) / num_images
    total = by_seed + by_image
    degrees = num_seeds - 1.0
    if total > 0:
        degrees = total**2 / (by_seed**2 / (num_seeds - 1) + by_image**2 / (num_images - 1))
    return _test("both", float(differences.mean()), math.sqrt(total), degrees)


def _test(over: str, value: float, error: float, degrees: float) -> Difference:
    if error > 0:
        p_value = 2.0 * float(stdtr(degrees, -abs(value) / error))
    else:  # all differences are one number
        p_value = 1.0 if value == 0 else 0.0
    return Difference(
        over=over, value=value, interval=_interval(value, error, degrees), p_value=p_value, degrees=degrees
    )


def _interval(value: float, error: float, degrees: float) -> Interval:
    half = float(stdtrit(degrees, 1 - ALPHA / 2)) * error
    return Interval(low=value - half, high=value + half, method="t")
