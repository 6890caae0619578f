"""Cross-fitting: what a choice is worth on images that it was not made on.

The validation images are split at random into two halves, class by class. The choice is made on one half and scored
on the other, then the other way round; the estimate is the mean over many such splits. It is honest about the choice:
the more a choice overfits the images that it is made on, the lower it scores on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.label_tasks import task_of

Rows = NDArray[np.int64]
Choice = TypeVar("Choice")

SPLITS = 10  # each gives two estimates


def stratified_halves(labels: NDArray[Any], num_splits: int = SPLITS, *, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
    """Random halves of N images, each class divided evenly; the odd image of a class falls into either.

    Args:
        labels: int (N,), or float (N, C) of 0 and 1: an image is then of its rarest class.
        num_splits: How many pairs of halves.
        seed: Of the draws; the same seed gives the same halves.

    Returns:
        Pairs of rising row numbers that are all rows together. A half may be empty where N is 1.
    """
    rng = np.random.default_rng(seed)
    strata = task_of(labels).strata(labels)
    for _ in range(num_splits):
        order = rng.permutation(len(labels))
        order = order[np.argsort(strata[order], kind="stable")]  # class by class, each in random order
        first = np.zeros(len(labels), dtype=bool)
        start, lead = 0, int(rng.integers(2))
        for count in np.bincount(strata):
            # Odd images alternate between the halves, so that these differ by one image at most.
            half = (count + lead) // 2
            lead = (lead + count) % 2
            first[order[start : start + half]] = True
            start += count
        yield np.flatnonzero(first), np.flatnonzero(~first)


def cross_fitted(
    labels: NDArray[Any],
    choose: Callable[[Rows], Choice],
    score: Callable[[Choice, Rows], float],
    num_splits: int = SPLITS,
    *,
    seed: int = 0,
) -> float:
    """The mean score of a choice on the half that it was not made on.

    Args:
        labels: int (N,).
        choose: Makes the choice on the images of these rows.
        score: What a choice is worth on the images of these rows.
        num_splits: Of the images into two halves; each half is chosen on once.
        seed: Of the halves. Two estimates with one seed are paired: they see the same halves.

    Returns:
        NaN where there are fewer than two images.
    """
    values = [
        score(choose(made), scored)
        for pair in stratified_halves(labels, num_splits, seed=seed)
        for made, scored in (pair, pair[::-1])
        if len(made) and len(scored)
    ]
    return fmean(values) if values else float("nan")
