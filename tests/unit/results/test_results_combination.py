"""Combinations are kept whole; cross-fitting is honest about a choice of the best of many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_records import make_trial, record_of

from tlsearch.core.errors import StorageError
from tlsearch.results.combine.combination import (
    Combination,
    Member,
    combined_model,
    read_combination,
    write_combination,
)
from tlsearch.results.combine.cross_fitting import cross_fitted, stratified_halves

_MADE = Combination(
    kind="ensemble",
    members=(Member(trial=4, count=3), Member(trial=0, count=1)),
    metric="val_loss",
    value=0.5,
    cross_fitted=0.6,
    best_trial=4,
    best_value=0.7,
    best_cross_fitted=0.75,
    parameters=1000,
    latency_ms=None,
    num_val=20,
    helps=True,
)


def test_a_combination_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Beside its model's folder; a search without one has none, and a damaged file is an error that names it."""
    assert read_combination(tmp_path, "ensemble") is None
    made = write_combination(tmp_path, _MADE, record_of([]))
    assert read_combination(tmp_path, "ensemble") == _MADE == made and read_combination(tmp_path, "soup") is None
    assert combined_model(tmp_path, "ensemble") == tmp_path / "combined" / "ensemble"
    (tmp_path / "combined" / "ensemble.json").write_text('{"kind": "stew"}')
    with pytest.raises(StorageError, match=r"ensemble\.json"):
        read_combination(tmp_path, "ensemble")


def test_a_combination_is_outdated_once_the_search_has_another_best_trial(tmp_path: Path) -> None:
    """Also by the same trial that has gone on; not by trials that are no better, nor in an earlier version's file."""
    trials = [make_trial(0, [0.5]), make_trial(1, [0.7])]
    made = write_combination(tmp_path, _MADE, record_of(trials))
    assert made == read_combination(tmp_path, "ensemble") and made.outdated_by(record_of(trials)) is None
    assert made.outdated_by(record_of([*trials, make_trial(2, [0.7])])) is None
    better = make_trial(2, [0.8])
    assert made.outdated_by(record_of([*trials, better])) == better
    gone_on = make_trial(1, [0.7, 0.8])
    assert made.outdated_by(record_of([trials[0], gone_on])) == gone_on
    assert _MADE.outdated_by(record_of([*trials, better])) is None


def test_a_gain_is_positive_where_a_smaller_value_is_better() -> None:
    """Losses fall, accuracies rise."""
    assert _MADE.gain == pytest.approx(0.15)
    assert replace(_MADE, metric="val_accuracy").gain == pytest.approx(-0.15)


@pytest.mark.parametrize("counts", [(6, 6), (5, 3, 1, 1), (1,), (7, 0, 2)])
def test_halves_divide_every_class_evenly(counts: tuple[int, ...]) -> None:
    """Odd images of classes alternate, so that the halves differ by one image at most."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    pairs = list(stratified_halves(labels, 20, seed=3))
    for first, second in pairs:
        assert sorted([*first, *second]) == list(range(len(labels)))
        assert abs(len(first) - len(second)) <= 1
        by_class = [np.bincount(labels[half], minlength=len(counts)) for half in (first, second)]
        assert (abs(by_class[0] - by_class[1]) <= 1).all()
    assert len({tuple(first) for first, _ in pairs}) > 1 or len(labels) == 1
    again = list(stratified_halves(labels, 20, seed=3))
    assert all((a[0] == b[0]).all() for a, b in zip(pairs, again, strict=True))


def test_the_best_of_many_equal_trials_scores_as_one_of_them() -> None:
    """On its own images the best of 200 coins looks better than chance; cross-fitted it does not."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 15)
    optimistic, honest = [], []
    for seed in range(40):
        right = rng.random((200, len(labels))) < 0.5
        optimistic.append(right.mean(1).max())
        honest.append(
            cross_fitted(
                labels,
                lambda rows, right=right: int(right[:, rows].mean(1).argmax()),  # type: ignore[misc]
                lambda trial, rows, right=right: float(right[trial, rows].mean()),  # type: ignore[misc]
                seed=seed,
            )
        )
    assert np.mean(optimistic) > 0.6
    assert abs(np.mean(honest) - 0.5) < 0.03
