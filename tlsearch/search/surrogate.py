"""A Gaussian process over points of a conditional space: what a trial there would reach, and how sure that is.

Notation: N points, D coordinates of a point, M candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tlsearch.search.drawing import Point
from tlsearch.types import Scalar

Array = NDArray[np.float64]

_LENGTHS = (0.25, 0.5, 1.0)  # of the kernel, in units of a dimension's whole range
_NOISES = (0.05, 0.2, 0.6)  # variance of a trial's result around its point's, as a share of the variance of all
_APART = 0.7  # distance between two choices of one dimension
_JITTER = 1e-8
_MAX_FITTED = 100  # points by which length and noise are chosen


class Encoder:
    """Points as coordinates: numbers on 0 to 1 (log scale where theirs is), a coordinate for each choice.

    A dimension that is inactive lies in the middle of its range and is told apart by a coordinate of its own.
    """

    def __init__(self, domains: Mapping[str, BaseDistribution]) -> None:
        """Takes all dimensions that points may have, by name."""
        self._columns = [(name, _encoding(domains[name])) for name in sorted(domains)]

    def encode(self, points: Sequence[Point]) -> Array:
        """Coordinates, (N, D)."""
        return np.array([self.row(point) for point in points])

    def row(self, point: Point) -> list[float]:
        """Coordinates of one point, D."""
        row: list[float] = []
        values = point.values
        for name, encoding in self._columns:
            if name in values:
                row.append(_APART / 2)
                row += encoding.of(values[name])
            else:
                row.append(0.0)
                row += encoding.inactive
        return row


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """Of a dimension without order: a coordinate for each choice."""

    places: Mapping[Scalar, list[float]]
    inactive: list[float]

    def of(self, value: Scalar) -> list[float]:
        """All zero where the value is none of the choices."""
        return self.places.get(value, self.inactive)


@dataclass(frozen=True, kw_only=True)
class _Range:
    """Of a dimension of numbers: one coordinate."""

    low: float
    high: float
    log: bool
    inactive: list[float]

    def of(self, value: Scalar) -> list[float]:
        """0 at the low end, 1 at the high one."""
        if not isinstance(value, int | float) or self.high <= self.low:
            return self.inactive
        at = math.log(value) if self.log else float(value)
        return [(at - self.low) / (self.high - self.low)]


def _encoding(domain: BaseDistribution) -> _Choices | _Range:
    if isinstance(domain, CategoricalDistribution):
        choices = domain.choices
        places: dict[Scalar, list[float]] = {
            choice: [_APART / math.sqrt(2) * (choice == one) for one in choices] for choice in choices
        }
        return _Choices(places=places, inactive=[0.0] * len(choices))
    assert isinstance(domain, FloatDistribution | IntDistribution)
    low, high = float(domain.low), float(domain.high)
    if domain.log:
        low, high = math.log(low), math.log(high)
    return _Range(low=low, high=high, log=domain.log, inactive=[0.5])


class Surrogate:
    """A Gaussian process with Matern 5/2 kernel; its length and noise are the likeliest of a few."""

    def __init__(self, points: Array, values: Array, noise: Array) -> None:
        """Fits.

        Args:
            points: (N, D).
            values: (N,), higher is better.
            noise: (N,), variance of each value beyond that of a finished trial, in squared units of values.
        """
        self._points = points
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        scaled, extra = (values - self._mean) / self._scale, noise / self._scale**2
        self._length, share = _likeliest(points, scaled, extra)
        covariance = _matern(_distances(points, points), self._length) + np.diag(share + extra + _JITTER)
        self._factor = _factor(covariance)
        self._weights = _solved(self._factor, _solved(self._factor, scaled), transposed=True)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of what points reach, (M,) each, without a trial's own chance."""
        cross = _matern(_distances(points, self._points), self._length)
        mean = cross @ self._weights
        half = _solved(self._factor, cross.T)
        variance = np.maximum(1.0 - (half**2).sum(axis=0), _JITTER)
        return self._mean + self._scale * mean, self._scale * np.sqrt(variance)


def _likeliest(points: Array, values: Array, extra: Array) -> tuple[float, float]:
    """Length and share of noise; of many points a part tells as well, evenly taken, and costs far less."""
    step = -(-len(points) // _MAX_FITTED)
    points, values, extra = points[::step], values[::step], extra[::step]
    apart = _distances(points, points)
    best, found = -math.inf, (_LENGTHS[0], _NOISES[0])
    for length in _LENGTHS:
        kernel = _matern(apart, length)
        for share in _NOISES:
            factor = _factor(kernel + np.diag(share + extra + _JITTER))
            half = _solved(factor, values)
            likelihood = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, found = likelihood, (length, share)
    return found


def _factor(covariance: Array) -> Array:
    """The lower Cholesky factor."""
    from scipy.linalg import cholesky  # here, because who only looks at a search needs no scipy

    return np.asarray(cholesky(covariance, lower=True, overwrite_a=True, check_finite=False))


def _solved(factor: Array, right: Array, *, transposed: bool = False) -> Array:
    """The lower triangular ``factor``, or its transpose, solved for a right side."""
    from scipy.linalg import solve_triangular

    trans = 1 if transposed else 0
    return np.asarray(solve_triangular(factor, right, lower=True, trans=trans, check_finite=False))


def _distances(one: Array, other: Array) -> Array:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _matern(apart: Array, length: float) -> Array:
    scaled = math.sqrt(5) * apart / length
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def expected_gain(mean: Array, deviation: Array, best: float) -> Array:
    """By how much a normal value is expected to exceed ``best``, (M,)."""
    from scipy.special import erf

    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(deviation * (z * 0.5 * (1 + erf(z / math.sqrt(2))) + density))
