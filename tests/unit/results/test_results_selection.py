"""Ensembles selected from kept predictions: better where trials complement each other, honest where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from averaging import average_scores
from numpy.typing import NDArray

from tlsearch.core.metrics import METRICS
from tlsearch.results.combine.combination import Member
from tlsearch.results.combine.selection import Selected, select_ensemble

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def _labels(num: int, classes: int = 4) -> Labels:
    return np.arange(num) % classes


def _trial(labels: Labels, rng: np.random.Generator, *, signal: float, sharpness: float = 1.0) -> Floats:
    """Logits with noise of its own: the larger the signal, the more images are right."""
    logits = rng.normal(0, 1, (len(labels), int(labels.max()) + 1))
    logits[np.arange(len(labels)), labels] += signal
    return logits * sharpness


def _independent(num: int, seed: int = 0, images: int = 200) -> tuple[Floats, Labels]:
    rng, labels = np.random.default_rng(seed), _labels(images)
    return np.stack([_trial(labels, rng, signal=1.2) for _ in range(num)]), labels


def _select(trials: list[int], logits: Floats, labels: Labels, **options: object) -> Selected:
    found = select_ensemble(trials, logits, labels, **{"metric": "val_accuracy", **options})  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss", "val_macro_f1"])
def test_trials_with_errors_of_their_own_are_better_together(metric: str) -> None:
    """What the selection says of its members is what their average scores, and the estimate is not the luckiest's."""
    logits, labels = _independent(8)
    trials = [40 + place for place in range(8)]
    found = _select(trials, logits, labels, metric=metric)
    assert found.helps and 1 < len(found.members) <= 5
    places = [member.trial - 40 for member in found.members]
    counts = [member.count for member in found.members]
    assert counts == sorted(counts, reverse=True) and min(counts) >= 1
    mine = METRICS[metric].value(average_scores(logits[places], found.temperatures, counts), labels)
    assert found.value == pytest.approx(mine, abs=1e-5)
    better = -1 if metric == "val_loss" else 1
    assert better * (found.cross_fitted - found.best_cross_fitted) > 0.02


def test_copies_of_one_trial_do_not_help() -> None:
    """Then the result is the best single trial, the first of equal ones."""
    rng, labels = np.random.default_rng(2), _labels(120)
    one = _trial(labels, rng, signal=1.5)
    found = _select([7, 8, 9], np.stack([one, one, one]), labels)
    assert not found.helps
    assert found.members == (Member(trial=7, count=1),) and found.best_trial == 7
    assert (found.value, found.cross_fitted) == (found.best_value, found.best_cross_fitted)


def test_a_weak_trial_does_not_spoil_a_strong_one() -> None:
    """One good trial among bad ones stays alone, or is counted most."""
    rng, labels = np.random.default_rng(3), _labels(200)
    logits = np.stack([_trial(labels, rng, signal=0.1) for _ in range(6)] + [_trial(labels, rng, signal=3.0)])
    found = _select(list(range(7)), logits, labels)
    assert found.members[0].trial == 6
    assert found.cross_fitted >= found.best_cross_fitted


def test_members_stay_within_the_limits() -> None:
    """Of count, and of what a set of trials costs; a trial beyond them alone is never the best single one."""
    logits, labels = _independent(9)
    logits[4] = _trial(labels, np.random.default_rng(9), signal=3.0)  # the best, and too large

    def fits(trials: frozenset[int]) -> bool:
        return 4 not in trials and sum(trials) <= 9

    found = _select(list(range(9)), logits, labels, fits=fits)
    assert found.best_trial != 4
    assert fits(frozenset(member.trial for member in found.members))
    two = _select(list(range(9)), logits, labels, max_models=2)
    assert len(two.members) <= 2
    assert select_ensemble([0], logits[:1], labels, metric="val_accuracy", fits=lambda _: False) is None


def test_a_confident_trial_is_not_counted_more_for_its_sharpness() -> None:
    """Each member has a temperature of its own: logits times 20 select and score the same."""
    logits, labels = _independent(4)
    sharp = logits.copy()
    sharp[1] *= 20.0
    plain, scaled = _select([0, 1, 2, 3], logits, labels), _select([0, 1, 2, 3], sharp, labels)
    assert plain.members == scaled.members
    assert plain.value == pytest.approx(scaled.value)


def test_the_estimate_does_not_promise_what_new_images_do_not_give() -> None:
    """Over many draws of few images and many equal trials, the mean of the estimates is the mean truth."""
    estimates, truths = [], []
    for seed in range(6):
        logits, labels = _independent(12, seed=seed, images=1040)
        few, rest = slice(0, 40), slice(40, None)
        found = _select(list(range(12)), logits[:, few], labels[few])
        places, counts = [m.trial for m in found.members], [m.count for m in found.members]
        estimates.append(found.cross_fitted)
        truths.append(
            METRICS["val_accuracy"].value(
                average_scores(logits[places][:, rest], found.temperatures, counts), labels[rest]
            )
        )
    assert np.mean(estimates) - np.mean(truths) < 0.03
