"""Two models, two searches: counts, tests and verdicts on planted predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from search_records import make_facts, make_trial, record_of

from tlsearch.core.errors import DataError
from tlsearch.core.types import SearchRecord, TrialState
from tlsearch.results.inference.labelled import Evaluation
from tlsearch.results.search_comparison import SearchComparison, compare_models, compare_searches, search_side

CLASSES = ("a", "b", "c")
LABELS = np.arange(300) % 3


def _evaluation(right: np.ndarray, labels: np.ndarray = LABELS, score: float = 0.8) -> Evaluation:
    said = np.where(right, labels, (labels + 1) % 3)
    probabilities = np.full((len(labels), 3), (1 - score) / 2)
    probabilities[np.arange(len(labels)), said] = score
    keys = tuple(f"{n:03d}" for n in range(len(labels)))
    return Evaluation(classes=CLASSES, keys=keys, labels=labels, probabilities=probabilities)


def _planted(only_a: int, only_b: int, both_wrong: int = 30) -> tuple[Evaluation, Evaluation]:
    a, b = np.ones(300, dtype=bool), np.ones(300, dtype=bool)
    b[:only_a] = False
    a[only_a : only_a + only_b] = False
    a[300 - both_wrong :] = b[300 - both_wrong :] = False
    return _evaluation(a), _evaluation(b)


def test_counts_and_the_test_are_those_of_the_planted_table() -> None:
    found = compare_models(("A", "B"), *_planted(25, 9))
    assert (found.paired.only_a, found.paired.only_b, found.both_wrong, found.both_right) == (25, 9, 30, 236)
    assert found.a.accuracy == pytest.approx(261 / 300) and found.b.accuracy == pytest.approx(245 / 300)
    assert found.paired.p_value == pytest.approx(stats.binomtest(25, 34).pvalue)
    assert found.paired.difference == pytest.approx(16 / 300)
    assert found.a.interval.low < found.a.accuracy < found.a.interval.high
    assert found.verdict.startswith("A is better: by 0.0533")
    assert json.loads(json.dumps(found.as_json()))["verdict"] == found.verdict


@pytest.mark.parametrize(
    ("only_a", "only_b", "says"),
    [
        (9, 25, "B is better"),
        (12, 9, "no difference shown"),
        (0, 0, "no difference shown"),
        (300 - 30, 0, "A is better"),
    ],
)
def test_verdicts(only_a: int, only_b: int, says: str) -> None:
    assert compare_models(("A", "B"), *_planted(only_a, only_b)).verdict.startswith(says)


def test_where_they_disagree() -> None:
    a, b = _planted(4, 2)
    sure = b.probabilities.copy()
    sure[3] = [0.01, 0.98, 0.01]  # label a, B says b and is surest of all
    found = compare_models(("A", "B"), a, replace(b, probabilities=sure))
    assert len(found.disagreements) == 6
    first = found.disagreements[0]
    assert (first.key, first.label, first.a, first.b, first.score_b) == ("003", "a", "a", "b", 0.98)
    assert sum(one.images for one in found.classes) == 300
    assert sum(one.right_a - one.right_b for one in found.classes) == 2
    spread = [abs(one.right_a - one.right_b) for one in found.classes]
    assert spread == sorted(spread, reverse=True)


def test_other_images_are_refused() -> None:
    a, _ = _planted(1, 1)
    with pytest.raises(DataError, match="same images"):
        compare_models(("A", "B"), a, replace(a, keys=tuple(reversed(a.keys))))
    with pytest.raises(DataError, match="same images"):
        compare_models(("A", "B"), a, replace(a, labels=(a.labels + 1) % 3))


def _record(name: str, *values: float, metric: str = "val_accuracy") -> SearchRecord:
    trials = [
        make_trial(n, [value], metric=metric, params={"backbone": ["resnet18", "mobilenet_v2"][n % 2]})
        for n, value in enumerate(values)
    ]
    return replace(record_of(trials, metric=metric), search_id=name)


def _compare(a: SearchRecord, b: SearchRecord, num: int = 300, **options: Any) -> SearchComparison:
    facts = make_facts(num_validation=num)
    second = replace(search_side(b, facts), facts=replace(facts, **options))
    return compare_searches(search_side(a, facts), second, None, "not kept")


def test_two_searches_by_their_best_values() -> None:
    found = _compare(_record("first", 0.80, 0.60), _record("second", 0.70, 0.75, 0.71))
    assert (found.a.best.trial, found.b.best.trial) == (0, 1)
    assert {name: row.trial for name, row in found.b.backbones.items()} == {"mobilenet_v2": 1, "resnet18": 2}
    assert found.difference == pytest.approx(0.05)
    assert found.interval is not None and found.interval.low < 0 < found.interval.high
    assert found.verdict == "no difference shown: 300 validation images cannot tell 0.0500"
    assert _compare(_record("first", 0.80), _record("second", 0.75), num=20_000).verdict.startswith("first is better")
    assert _compare(_record("first", 0.8), _record("second", 0.8)).verdict == "the best values are equal"
    assert json.loads(json.dumps(found.as_json()))["models_missing"] == "not kept"


def test_each_value_has_the_noise_of_its_own_validation_images() -> None:
    a, b = _record("first", 0.80), _record("second", 0.70)
    alone, folds = _compare(a, b, num=60), _compare(a, b, num=60, images={"train": 4000, "val": 60}, folds=5)
    assert alone.interval is not None and folds.interval is not None
    assert folds.interval.high - folds.interval.low < alone.interval.high - alone.interval.low
    other_way = _compare(b, replace(a, search_id="third"), num=4060, images={"train": 4000, "val": 60})
    assert other_way.num_validation == 60 and other_way.verdict.startswith("no difference shown: 60 validation images")


def test_a_lower_loss_is_better_and_has_no_interval() -> None:
    found = _compare(_record("first", 0.9, metric="val_loss"), _record("second", 0.8, metric="val_loss"))
    assert found.interval is None
    assert found.verdict.startswith("second has the better value by 0.1000")


def test_the_paired_test_of_the_models_decides_where_there_is_one() -> None:
    a, b = _record("first", 0.80), _record("second", 0.75)
    models = compare_models(("first", "second"), *_planted(25, 9))
    found = replace(_compare(a, b), models=models)
    assert found.verdict == models.verdict and found.verdict.startswith("first is better")


def test_searches_that_cannot_be_compared() -> None:
    a = _record("first", 0.8)
    with pytest.raises(DataError, match="one metric"):
        _compare(a, _record("second", 0.8, metric="val_loss"))
    with pytest.raises(DataError, match="the images of first and second differ"):
        _compare(a, _record("second", 0.8), digest="another")
    failed = replace(record_of([make_trial(0, [], state=TrialState.FAILED, reason="error")]), search_id="second")
    with pytest.raises(DataError, match="no trial of second has one"):
        _compare(a, failed)
