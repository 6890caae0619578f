"""Two multi-label models: paired bootstrap of their metrics, classes and images where they differ, the verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from search_records import make_facts, make_trial, record_of

from tlsearch.core.errors import DataError
from tlsearch.core.label_tasks import TASKS
from tlsearch.results.answer_comparison import compare_answers
from tlsearch.results.inference.multi_labelled import MultiLabelEvaluation
from tlsearch.results.search_comparison import compare_searches, search_side
from tlsearch.results.stats.intervals import bootstrap_differences, bootstrap_metric

CLASSES = ("a", "b", "c")
TASK = TASKS["multi_label"]


def evaluation(noise: float, *, num: int = 200, seed: int = 1) -> MultiLabelEvaluation:
    """Answers about the same images, the worse the noisier."""
    labels = (np.random.default_rng(0).random((num, 3)) < 0.4).astype(np.float32)
    scores = 4 * labels - 2 + noise * np.random.default_rng(seed).normal(size=labels.shape)
    return MultiLabelEvaluation(
        classes=CLASSES,
        keys=tuple(f"{n:03d}" for n in range(num)),
        labels=labels,
        probabilities=TASK.probabilities(scores),
        thresholds=(0.5, 0.4, 0.6),
    )


def test_the_better_model_is_named_and_equal_ones_are_not_told_apart() -> None:
    good, bad = evaluation(1.0), evaluation(4.0, seed=2)
    found = compare_answers(("good", "bad"), good, bad)
    first = found.metrics[0]
    assert (first.name, first.a, first.b) == ("val_map", good.value("val_map"), bad.value("val_map"))
    assert 0 < first.interval.low < first.difference < first.interval.high
    assert found.verdict.startswith(f"good is better: val_map by {first.difference:.4f}")
    turned = compare_answers(("bad", "good"), bad, good)
    assert turned.verdict.startswith("good is better") and turned.metrics[0].interval.high < 0
    assert {one.name for one in found.metrics} == TASK.metrics.keys()
    alike = compare_answers(("one", "two"), evaluation(3.0, seed=3), evaluation(3.0, seed=4))
    assert alike.verdict.startswith("no difference shown: val_map differs by")
    assert json.loads(json.dumps(found.as_json()))["verdict"] == found.verdict


def test_of_a_loss_the_lower_one_is_better() -> None:
    found = compare_answers(("bad", "good"), evaluation(4.0), evaluation(1.0), metric="val_loss")
    assert found.metric == "val_loss" and found.metrics[0].difference > 0
    assert found.verdict.startswith("good is better: val_loss by")


def test_the_same_images_are_drawn_for_both() -> None:
    a, b = evaluation(2.0).probabilities, evaluation(2.2).probabilities  # nearly one model: their errors go together
    labels = evaluation(2.0).labels
    (paired,) = bootstrap_differences(["val_map"], a, b, labels)
    spread, _ = bootstrap_metric("val_map", a, labels)
    assert paired.high - paired.low < spread
    assert bootstrap_differences(["val_map"], a, a, labels)[0].low == 0.0


def test_classes_and_images_where_they_differ() -> None:
    a = evaluation(0.1)
    probabilities = a.probabilities.copy()
    probabilities[:50, 1] = 1 - probabilities[:50, 1]  # B is wrong about one class of these
    probabilities[7] = 1 - probabilities[7]
    found = compare_answers(("A", "B"), a, replace(a, probabilities=probabilities))
    assert found.classes[0].name == "b" and found.classes[0].a == 1.0 > (found.classes[0].b or 0.0)
    assert found.classes[0].images == int(a.labels[:, 1].sum())
    assert len(found.disagreements) == 50
    first = found.disagreements[0]
    assert first.key == "007" and (first.wrong_a, first.wrong_b) == (0, 2)  # b is as it was: turned twice
    assert first.a == first.label != first.b


def test_other_images_are_refused() -> None:
    a = evaluation(1.0)
    for other in (replace(a, keys=tuple(reversed(a.keys))), replace(a, labels=1 - a.labels), evaluation(1.0, num=5)):
        with pytest.raises(DataError, match="same images"):
            compare_answers(("A", "B"), a, other)


@pytest.mark.parametrize(("metric", "decides"), [("val_map", True), ("val_micro_f1", False)])
def test_two_searches_rest_on_the_test_of_their_own_metric(metric: str, decides: bool) -> None:
    records = tuple(
        replace(record_of([make_trial(0, [value], metric=metric)], metric=metric), search_id=name)
        for name, value in (("first", 0.8), ("second", 0.7))
    )
    facts = make_facts(num_validation=200)
    first, second = (search_side(record, facts) for record in records)
    models = compare_answers(("first", "second"), evaluation(1.0), evaluation(4.0))
    found = compare_searches(first, second, models)
    assert (found.verdict == models.verdict) == decides
