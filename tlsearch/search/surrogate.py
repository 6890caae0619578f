"""A Gaussian process over points of a conditional space: what a trial there would reach, and how sure that is.

Notation: N points, D coordinates of a point, M candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tlsearch.search.drawing import Point
from tlsearch.types import Scalar

Array = NDArray[np.float64]

# The prior of a kernel. A length is in units of a whole range; its median grows with the root of the number
# of coordinates, as distances do (Hvarfner et al. 2024, arXiv 2402.02229), and its logarithm is normal.
_LENGTH, _SPREAD = 0.2, 1.0
_NOISES = (0.02, 0.8)  # variance of a trial's result around its point's, as a share of the variance of all; log-uniform
_NUM_KERNELS = 48  # drawn from the prior
_NUM_KEPT = 8  # the likeliest of them
_APART = 0.7  # distance between two choices of one dimension
_JITTER = 1e-8


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


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Matern 5/2 with a length for each coordinate, (D,); ``noise`` in variances of all values, ``weight`` of one."""

    lengths: Array
    noise: float
    weight: float = 1.0

    def of(self, one: Array, other: Array) -> Array:
        """Covariances of points, (N, M)."""
        return _matern(_distances(one / self.lengths, other / self.lengths))


class Surrogate:
    """Gaussian processes over the same points, weighed by how likely each makes their values.

    The kernel's parameters are not fitted, since few points allow many: they are drawn from a prior, and what follows
    is averaged over the likeliest draws (integrated acquisition: Snoek et al. 2012, arXiv 1206.2944).
    """

    def __init__(self, points: Array, values: Array, noise: Array, *, kernels: Sequence[Kernel] | None = None) -> None:
        """Learns.

        Args:
            points: (N, D).
            values: (N,), higher is better.
            noise: (N,), variance of each value beyond that of a finished trial, in squared units of values.
            kernels: In place of those that the points make likely.
        """
        self._points, self._values, self._noise = points, values, noise
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        scaled, extra = (values - self._mean) / self._scale, noise / self._scale**2
        self._kernels = likely_kernels(points, scaled, extra) if kernels is None else kernels
        self._fits = [(kernel, *_fit(kernel, points, scaled, extra)) for kernel in self._kernels]

    def believing(self, points: Array) -> Surrogate:
        """The same where points, (M, D), have come out as expected (kriging believer: Ginsbourger et al. 2010)."""
        values = np.concatenate([self._values, self.expected(points)])
        noise = np.concatenate([self._noise, np.zeros(len(points))])
        return Surrogate(np.concatenate([self._points, points]), values, noise, kernels=self._kernels)

    def expected(self, points: Array) -> Array:
        """What points reach, (M,)."""
        return np.asarray(sum(kernel.weight * mean for kernel, mean, _ in self._predictions(points)))

    def gain(self, points: Array, best: float) -> Array:
        """By how much points are expected to exceed ``best``, (M,), without a trial's own chance."""
        gains = (kernel.weight * expected_gain(mean, sd, best) for kernel, mean, sd in self._predictions(points))
        return np.asarray(sum(gains))

    def _predictions(self, points: Array) -> Iterator[tuple[Kernel, Array, Array]]:
        """By kernel the mean and the standard deviation of what points reach, (M,) each."""
        for kernel, factor, weights in self._fits:
            cross = kernel.of(points, self._points)
            half = _solved(factor, cross.T)
            variance = np.maximum(1.0 - (half**2).sum(axis=0), _JITTER)
            yield kernel, self._mean + self._scale * (cross @ weights), self._scale * np.sqrt(variance)


def likely_kernels(points: Array, values: Array, noise: Array) -> list[Kernel]:
    """The likeliest of the kernels that are drawn from the prior, weighed by their likelihoods, which sum to 1.

    Args:
        points: (N, D).
        values: (N,), of mean 0 and variance 1.
        noise: (N,), as variances of such values.
    """
    rng = np.random.default_rng(len(points))  # a function of what was seen, so that a resumed search goes on alike
    median = _LENGTH * math.sqrt(max(1, int((np.ptp(points, axis=0) > 0).sum())))
    drawn = [
        Kernel(
            lengths=median * np.exp(rng.normal(0.0, _SPREAD, points.shape[1])),
            noise=math.exp(rng.uniform(math.log(_NOISES[0]), math.log(_NOISES[1]))),
        )
        for _ in range(_NUM_KERNELS)
    ]
    likelihoods = []
    for kernel in drawn:
        factor, weights = _fit(kernel, points, values, noise)
        likelihoods.append(-0.5 * float(values @ weights) - float(np.log(np.diag(factor)).sum()))
    kept = np.argsort(likelihoods)[::-1][:_NUM_KEPT]
    shares = np.exp(np.array(likelihoods)[kept] - max(likelihoods))
    return [
        replace(drawn[index], weight=float(share)) for index, share in zip(kept, shares / shares.sum(), strict=True)
    ]


def _fit(kernel: Kernel, points: Array, values: Array, noise: Array) -> tuple[Array, Array]:
    """The lower Cholesky factor of the points' covariance, (N, N), and its inverse times the values, (N,)."""
    factor = _factor(kernel.of(points, points) + np.diag(kernel.noise + noise + _JITTER))
    return factor, _solved(factor, _solved(factor, values), transposed=True)


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


def _matern(apart: Array) -> Array:
    scaled = math.sqrt(5) * apart
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


def expected_gain(mean: Array, deviation: Array, best: float) -> Array:
    """By how much a normal value is expected to exceed ``best``, (M,)."""
    from scipy.special import erf

    z = (mean - best) / deviation
    density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.asarray(deviation * (z * 0.5 * (1 + erf(z / math.sqrt(2))) + density))
