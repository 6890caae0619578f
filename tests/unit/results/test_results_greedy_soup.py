"""The greedy soup: joins while it does not get worse, each average asked for once, honest about its choice."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray

from tlsearch.results.combine.greedy_soup import choose_soup

Scores = NDArray[np.floating]
LABELS = np.repeat(np.arange(3), 20)


class Averages:
    """Stands for averages of weights: logits are averaged."""

    def __init__(self, singles: dict[int, Scores]) -> None:
        self.singles = singles
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, members: tuple[int, ...]) -> Scores:
        self.asked.append(members)
        return np.mean([self.singles[number] for number in members], axis=0)


def noisy(count: int, *, seed: int, strength: float = 1.0, noise: float = 1.0) -> Averages:
    rng = np.random.default_rng(seed)
    truth = strength * np.eye(3)[LABELS]
    return Averages({number: truth + noise * rng.normal(size=truth.shape) for number in range(count)})


def test_independent_errors_average_out_and_each_average_is_asked_for_once() -> None:
    averages = noisy(6, seed=0)
    chosen = choose_soup(range(6), averages, LABELS, "val_accuracy")
    assert chosen.helps and len(chosen.members) > 2
    assert chosen.cross_fitted > chosen.best_cross_fitted + 0.05
    assert len(averages.asked) == len(set(averages.asked))
    accuracy = {number: float((one.argmax(1) == LABELS).mean()) for number, one in averages.singles.items()}
    assert chosen.members[0] == chosen.best_trial == max(accuracy, key=lambda number: accuracy[number])
    assert chosen.best_value == accuracy[chosen.best_trial] and chosen.value >= chosen.best_value


def test_what_makes_the_average_worse_stays_out() -> None:
    good = noisy(2, seed=1)
    bad = {2: -5 * np.eye(3)[LABELS], 3: -6 * np.eye(3)[LABELS]}
    chosen = choose_soup([0, 1, 2, 3], Averages(good.singles | bad), LABELS, "val_loss")
    assert set(chosen.members) <= {0, 1}


def test_where_it_does_not_help_it_says_so() -> None:
    """One good trial with copies: the average is it again, and no better."""
    one = noisy(1, seed=2).singles[0]
    chosen = choose_soup([4, 5, 6], Averages(dict.fromkeys((4, 5, 6), one)), LABELS, "val_accuracy")
    assert not chosen.helps and chosen.best_trial == 4
    assert chosen.cross_fitted == pytest.approx(chosen.best_cross_fitted)


def test_it_must_beat_the_best_of_all_trials() -> None:
    averages = noisy(3, seed=3, strength=0.5)
    averages.singles[9] = 9.0 * np.eye(3)[LABELS]
    chosen = choose_soup([0, 1, 2], averages, LABELS, "val_accuracy", singles=[0, 1, 2, 9])
    assert (chosen.best_trial, chosen.best_value, chosen.helps) == (9, 1.0, False)
    assert not any(9 in members for members in averages.asked if len(members) > 1)


def test_seeds_of_one_trial_are_averaged_all_before_others_join() -> None:
    """Also those that look worse on these images; trainings with other seeds are not among the single models."""
    averages = noisy(6, seed=4)
    averages.singles[6] = -5 * np.eye(3)[LABELS]
    chosen = choose_soup([0, 1, 6], averages, LABELS, "val_accuracy", start=[1, 2, 3, 4])
    assert chosen.members[:4] == (1, 2, 3, 4) and 6 not in chosen.members
    assert chosen.best_trial in (0, 1) and chosen.helps
    alone = choose_soup([1], averages, LABELS, "val_accuracy", start=[1, 2, 3, 4])
    accuracy = (averages((1, 2, 3, 4)).argmax(1) == LABELS).mean()
    assert alone.members == (1, 2, 3, 4) and alone.value == alone.cross_fitted == pytest.approx(accuracy)


def test_the_estimate_is_not_optimistic_where_nothing_is_to_be_learned() -> None:
    """Pure noise scores a third; chosen and scored on the same images it would look much better."""
    values, cross = [], []
    for seed in range(20):
        chosen = choose_soup(range(8), noisy(8, seed=seed, strength=0.0), LABELS, "val_accuracy")
        values.append(chosen.value)
        cross.append(chosen.cross_fitted)
    assert fmean(values) > 0.42
    assert abs(fmean(cross) - 1 / 3) < 0.03
