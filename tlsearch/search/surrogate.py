"""A Gaussian process over points of a conditional space: what a trial there would reach, and how sure that is.

Notation: N points, D coordinates of a point, M candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tlsearch.search.drawing import Point

Array = NDArray[np.float64]

_LENGTHS = (0.25, 0.5, 1.0)  # of the kernel, in units of a dimension's whole range
_NOISES = (0.05, 0.2, 0.6)  # variance of a trial's result around its point's, as a share of the variance of all
_APART = 0.7  # distance between two choices of one dimension
_JITTER = 1e-8


class Encoder:
    """Points as coordinates: numbers on 0 to 1 (log scale where theirs is), a coordinate for each choice.

    A dimension that is inactive lies in the middle of its range and is told apart by a coordinate of its own.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        """Learns the dimensions of all points."""
        self._domains: dict[str, BaseDistribution] = {}
        for point in points:
            self._domains |= point.domains

    def encode(self, points: Sequence[Point]) -> Array:
        """Coordinates, (N, D)."""
        return np.array([self._row(point) for point in points])

    def _row(self, point: Point) -> list[float]:
        row: list[float] = []
        for name in sorted(self._domains):
            value, domain = point.values.get(name), self._domains[name]
            active = name in point.values
            row.append(_APART / 2 if active else 0.0)
            if isinstance(domain, CategoricalDistribution):
                row += [_APART / math.sqrt(2) * (active and value == choice) for choice in domain.choices]
            else:
                assert isinstance(domain, FloatDistribution | IntDistribution)
                row.append(_unit(float(value), domain) if isinstance(value, int | float) else 0.5)
        return row


def _unit(value: float, domain: FloatDistribution | IntDistribution) -> float:
    low, high = float(domain.low), float(domain.high)
    if domain.log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low) if high > low else 0.5


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
        apart = _distances(points, points)
        fits = [_fit(apart, scaled, extra, length, share) for length in _LENGTHS for share in _NOISES]
        best = max(fits, key=lambda fit: fit.likelihood)
        self._fit = best

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of what points reach, (M,) each, without a trial's own chance."""
        cross = _matern(_distances(points, self._points), self._fit.length)
        mean = cross @ self._fit.weights
        half = np.linalg.solve(self._fit.factor, cross.T)
        variance = np.maximum(1.0 - (half**2).sum(axis=0), _JITTER)
        return self._mean + self._scale * mean, self._scale * np.sqrt(variance)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    length: float
    likelihood: float
    factor: Array
    weights: Array


def _fit(apart: Array, values: Array, extra: Array, length: float, share: float) -> _Fit:
    covariance = _matern(apart, length) + np.diag(share + extra + _JITTER)
    factor: Array = np.linalg.cholesky(covariance).astype(np.float64)
    half = np.linalg.solve(factor, values)
    likelihood = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
    return _Fit(length=length, likelihood=likelihood, factor=factor, weights=np.linalg.solve(factor.T, half))


def _distances(one: Array, other: Array) -> Array:
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def _matern(apart: Array, length: float) -> Array:
    scaled = math.sqrt(5) * apart / length
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


_ERF = np.vectorize(math.erf, otypes=[np.float64])


def expected_gain(mean: Array, deviation: Array, best: float) -> Array:
    """By how much a normal value is expected to exceed ``best``, (M,)."""
    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(deviation * (z * 0.5 * (1 + _ERF(z / math.sqrt(2))) + density))
