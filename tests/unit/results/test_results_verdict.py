"""Repeated trainings: intervals and tests against SciPy's, and verdicts on planted configurations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tlsearch.core.types import Objective
from tlsearch.results.stats.seed_tests import (
    difference_over_both,
    difference_over_images,
    difference_over_seeds,
    mean_over_seeds,
)
from tlsearch.results.stats.verdict import Repeated, judge

NUM_IMAGES = 400


def test_the_mean_has_scipys_t_interval() -> None:
    values = [0.71, 0.69, 0.74, 0.70]
    mean = mean_over_seeds(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert mean.interval is not None
    assert (mean.interval.low, mean.interval.high) == pytest.approx((low, high))
    assert mean.deviation == pytest.approx(np.std(values, ddof=1))
    assert mean_over_seeds([0.5]).interval is None


def test_the_tests_over_seeds_and_over_images_are_scipys_paired_test() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.7, 0.02, 6), rng.normal(0.68, 0.02, 6)
    expected = stats.ttest_rel(first, second)
    found = difference_over_seeds(list(first), list(second))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    ours, theirs = rng.random((3, 50)), rng.random((3, 50))
    assert difference_over_images(ours, theirs).p_value == pytest.approx(
        stats.ttest_rel(ours.mean(0), theirs.mean(0)).pvalue
    )


def test_the_test_over_both_is_more_careful_than_either() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((4, 60)) + 0.05, rng.random((4, 60))
    both = difference_over_both(ours, theirs)
    seeds = difference_over_seeds(list(ours.mean(1)), list(theirs.mean(1)))
    images = difference_over_images(ours, theirs)
    assert both.value == pytest.approx(seeds.value) and both.value == pytest.approx(images.value)
    assert both.p_value > max(seeds.p_value, images.p_value) or both.degrees > seeds.degrees
    assert both.interval.high - both.interval.low > images.interval.high - images.interval.low


def test_the_test_over_both_holds_its_level() -> None:
    """Of equal configurations with effects of seed, of image and of both, about 5 % may look different, not more."""
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(400):
        seeds, images = rng.normal(0, 0.5, (5, 1)), rng.normal(0, 1, (1, 40))
        differences = seeds + images + rng.normal(0, 1, (5, 40))
        wrong += difference_over_both(differences, np.zeros((5, 40))).p_value < 0.05
    assert wrong / 400 < 0.08


def test_equal_numbers_are_equal_and_a_constant_advantage_is_one() -> None:
    assert difference_over_seeds([0.5, 0.6], [0.5, 0.6]).p_value == 1.0
    assert difference_over_seeds([0.75, 0.5], [0.5, 0.25]).p_value == 0.0


def _planted(trial: int, accuracy: float, *, rng: np.random.Generator, parameters: int, scored: bool) -> Repeated:
    """Five trainings: each image has a difficulty of its own, each training a luck of its own."""
    difficulty = np.random.default_rng(99).random(NUM_IMAGES)
    scores = {}
    for seed in range(5):
        level = accuracy + rng.normal(0, 0.008)
        noise = rng.normal(0, 0.1, NUM_IMAGES)
        order = (difficulty + noise).argsort().argsort() / NUM_IMAGES
        scores[seed] = (order < level).astype(np.float64)
    return Repeated(
        trial=trial,
        params={},
        first_value=0.8,
        values={seed: float(one.mean()) for seed, one in scores.items()},
        trials={seed: 10 * trial + seed for seed in scores},
        parameters=parameters,
        epoch_seconds=1.0,
        scores=scores if scored else None,
    )


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("start", range(8))
def test_five_points_are_seen(start: int, scored: bool) -> None:
    rng = np.random.default_rng(start)
    good = _planted(1, 0.75, rng=rng, parameters=9, scored=scored)
    verdict = judge([_planted(2, 0.70, rng=rng, parameters=1, scored=scored), good], Objective.of("val_accuracy"))
    assert verdict.outcome == "better" and verdict.recommended == 1
    assert verdict.text.startswith("rank 1 (trial 1) is better than rank 2 (trial 2)")


def test_equal_configurations_are_called_equal_and_the_cheaper_one_is_taken() -> None:
    outcomes = []
    for start in range(20):
        rng = np.random.default_rng(start)
        pair = [_planted(n, 0.75, rng=rng, parameters=10 - n, scored=True) for n in (1, 2)]
        verdict = judge(pair, Objective.of("val_accuracy"))
        outcomes.append(verdict.outcome)
        if verdict.outcome == "equal":
            assert verdict.recommended == 2
            assert (
                "do not differ by more than chance" in verdict.text
                and "the cheaper one is as good: trial 2" in verdict.text
            )
    assert outcomes.count("better") <= 2


def test_a_smaller_loss_is_better() -> None:
    def repeated(trial: int, values: list[float]) -> Repeated:
        return Repeated(
            trial=trial,
            params={},
            first_value=None,
            values=dict(enumerate(values)),
            trials={},
            parameters=1,
            epoch_seconds=1.0,
        )

    pair = [repeated(1, [0.9, 0.92, 0.91]), repeated(2, [0.5, 0.53, 0.51])]
    verdict = judge(pair, Objective.of("val_loss"))
    assert verdict.recommended == 2 and verdict.outcome == "better"
    assert [one.trial for one in verdict.ranking] == [2, 1]
    assert judge([pair[0], repeated(3, [0.4])], Objective.of("val_loss")).outcome == "unknown"
    assert judge([pair[0]], Objective.of("val_loss")).outcome == "unknown"


def test_a_few_per_cent_of_time_do_not_make_a_configuration_cheaper() -> None:
    def repeated(trial: int, value: float, seconds: float) -> Repeated:
        values = {seed: value + 0.01 * seed for seed in range(3)}
        return Repeated(
            trial=trial,
            params={},
            first_value=None,
            values={seed: v + (0.02 if (seed + trial) % 2 else 0.0) for seed, v in values.items()},
            trials={},
            parameters=1,
            epoch_seconds=seconds,
        )

    near = judge([repeated(1, 0.71, 2.0), repeated(2, 0.705, 1.95)], Objective.of("val_accuracy"))
    assert near.outcome == "equal" and near.recommended == near.ranking[0].trial
    assert "none is notably cheaper, so rank 1 stays" in near.text
    pair = [repeated(1, 0.71, 2.0), repeated(2, 0.705, 0.5)]
    far = judge(pair, Objective.of("val_accuracy"))
    assert far.outcome == "equal" and far.recommended == 2 and far.text.endswith("0.5 s an epoch)")
    folded = judge(pair, Objective.of("val_accuracy"), step="fold")
    assert folded.recommended == 2 and folded.text.endswith("0.5 s a fold)")


def test_a_solved_head_is_not_cheaper_by_time() -> None:
    """Of two, the first pays for the features that both read; a larger model is dearer all the same."""
    values = {1: {0: 0.70, 1: 0.72, 2: 0.71}, 2: {0: 0.71, 1: 0.69, 2: 0.70}}
    for seconds in ((None, None), (0.3, None), (None, 0.3)):
        pair = [
            replace(_with_seeds(trial, values[trial]), epoch_seconds=one)
            for trial, one in zip(values, seconds, strict=True)
        ]
        found = judge(pair, Objective.of("val_macro_f1"))
        assert (found.outcome, found.recommended) == ("equal", 1) and "none is notably cheaper" in found.text
        assert ("a solved head)" in found.text) == (seconds[0] is None)
        larger = judge([replace(pair[0], parameters=20), pair[1]], Objective.of("val_macro_f1"))
        assert larger.recommended == 2 and "the cheaper one is as good: trial 2" in larger.text


def test_the_same_difference_with_every_seed_shows_nothing_without_values_of_images() -> None:
    """Solved heads give the same with all seeds: a difference of one image would be certain, with p = 0."""
    ours, theirs = (dict.fromkeys(range(3), value) for value in (0.9776, 0.9552))
    found = judge([_with_seeds(0, ours), _with_seeds(1, theirs)], Objective.of("val_macro_f1"))
    assert (found.outcome, found.recommended, found.comparisons[0].better) == ("unknown", 0, False)
    assert "differ by 0.0224 in val_macro_f1 with every seed" in found.text and "p = 0" not in found.text
    equal = judge([_with_seeds(0, ours), _with_seeds(1, ours)], Objective.of("val_macro_f1"))
    assert equal.outcome == "equal"


def _with_seeds(trial: int, values: dict[int, float]) -> Repeated:
    return Repeated(
        trial=trial,
        params={},
        first_value=0.9,
        values=values,
        trials={},
        parameters=10,
        epoch_seconds=1.0,
    )
