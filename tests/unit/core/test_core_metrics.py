"""Metrics equal scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from tlsearch.core.metrics import METRICS, Objective


@pytest.mark.parametrize(("num_classes", "num_labels"), [(2, 2), (5, 5), (12, 12), (12, 7), (3, 1)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_metrics_equal_scikit_learn(num_classes: int, num_labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_labels, 97)
    logits = rng.normal(size=(97, num_classes)) + np.eye(num_classes)[labels]
    predicted, every = logits.argmax(1), np.arange(num_classes)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "val_accuracy": sk.accuracy_score(labels, predicted),
        "val_loss": sk.log_loss(labels, probabilities, labels=every),
        "val_macro_f1": sk.f1_score(labels, predicted, average="macro", zero_division=0),
        "val_balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
    }
    if num_classes >= METRICS["val_top5_accuracy"].min_classes:
        expected["val_top5_accuracy"] = sk.top_k_accuracy_score(labels, logits, k=5, labels=every)
    for scores in (logits, np.log(probabilities), logits.astype(np.float32)):
        found = {name: METRICS[name].value(scores, labels) for name in expected}
        assert found == pytest.approx(expected, rel=1e-5)


def test_equal_scores_are_no_hits_among_five() -> None:
    assert METRICS["val_top5_accuracy"].value(np.zeros((12, 12)), np.arange(12)) == pytest.approx(5 / 12)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_finite_show_in_the_loss(score: float) -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = score
    assert not np.isfinite(METRICS["val_loss"].value(logits, np.array([0, 1, 2, 0])))


@pytest.mark.parametrize(("metric", "order"), [("val_accuracy", "bdac"), ("val_loss", "cbda"), ("unknown", "bdac")])
def test_an_objective_ranks_what_has_a_value_and_keeps_the_order_of_equal_ones(metric: str, order: str) -> None:
    values = {"a": 0.2, "b": 0.5, "c": 0.1, "d": 0.5, "e": None}
    objective = Objective.of(metric)
    if objective.mode == "min":
        values |= {"b": 0.15, "d": 0.15}
    assert "".join(objective.ranked(values, values.get)) == order
    assert objective.best(values, values.get) == order[0] and objective.best([], values.get) is None
    assert objective.better(0.5, 0.2) == (objective.mode == "max") and not objective.better(0.5, 0.5)
