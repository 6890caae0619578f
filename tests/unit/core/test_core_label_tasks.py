"""Tasks: metrics of several labels equal scikit-learn's; what is computed from labels, scores and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from tlsearch.core.label_tasks import TASKS, class_counts, classes_of, label_text, task_of
from tlsearch.core.metrics import METRICS, Objective

SEVERAL, ONE = TASKS["multi_label"], TASKS["single_label"]


def answers(num_images: int = 83, num_classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, C), some of them equal, and labels (N, C) that they tell something of."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_images, num_classes)) < np.linspace(0.1, 0.6, num_classes)).astype(np.float32)
    scores = np.round(rng.normal(size=labels.shape) + labels - 0.4, 1)
    return scores, labels


@pytest.mark.parametrize("seed", range(4))
def test_metrics_of_several_labels_equal_scikit_learn(seed: int) -> None:
    scores, labels = answers(seed=seed)
    probabilities, said = 1 / (1 + np.exp(-scores)), scores > 0
    expected = {
        "val_map": sk.average_precision_score(labels, scores, average="macro"),
        "val_loss": np.mean([sk.log_loss(labels[:, c], probabilities[:, c]) for c in range(6)]),
        "val_micro_f1": sk.f1_score(labels, said, average="micro"),
        "val_macro_f1": sk.f1_score(labels, said, average="macro", zero_division=0),
    }
    assert SEVERAL.values(scores, labels) == pytest.approx(expected, rel=1e-6)
    assert SEVERAL.values(scores.astype(np.float32), labels) == pytest.approx(expected, rel=1e-5)
    assert SEVERAL.confusion(scores, labels).tolist() == sk.multilabel_confusion_matrix(labels, said).tolist()


def test_classes_that_no_image_has_are_left_out_of_the_map() -> None:
    scores, labels = answers()
    labels[:, 2] = 0
    others = [c for c in range(6) if c != 2]
    expected = sk.average_precision_score(labels[:, others], scores[:, others], average="macro")
    assert SEVERAL.metrics["val_map"].value(scores, labels) == pytest.approx(expected)
    assert SEVERAL.metrics["val_map"].value(scores, np.zeros_like(labels)) == 0.0


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_finite_show_in_the_loss(score: float) -> None:
    scores, labels = answers()
    scores[3, 1], labels[3, 1] = score, 0.0
    assert not np.isfinite(SEVERAL.metrics["val_loss"].value(scores, labels))


@pytest.mark.parametrize("seed", range(4))
def test_thresholds_have_the_largest_f1_of_each_class(seed: int) -> None:
    scores, labels = answers(num_images=31, seed=seed)
    probabilities = SEVERAL.probabilities(scores)
    for place, threshold in enumerate(SEVERAL.thresholds(scores, labels)):
        own = probabilities[:, place]
        cuts = [*np.unique(own), 0.5, -1.0]
        best = max(sk.f1_score(labels[:, place], own > cut, zero_division=0) for cut in cuts)
        assert sk.f1_score(labels[:, place], own > threshold, zero_division=0) == pytest.approx(best)


def test_a_threshold_is_a_half_where_that_is_as_good_as_any() -> None:
    scores = np.array([[2.0, 0.1], [-2.0, -0.2], [3.0, -0.1], [-1.0, 0.3]])
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    assert SEVERAL.thresholds(scores, labels) == (0.5, 0.5)  # no image has the second class
    assert ONE.thresholds(scores, np.array([0, 1, 0, 1])) == ()


def test_labels_become_arrays_that_tell_their_task() -> None:
    several, one = SEVERAL.array([(0, 2), (), (1,)], 3), ONE.array([2, 0, 1], 3)
    assert several.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]] and several.dtype == np.float32
    assert one.tolist() == [2, 0, 1] and one.dtype == np.int64
    assert task_of(several) is SEVERAL and task_of(one) is ONE
    assert ONE.indicators(one, 3).tolist() == np.eye(3)[[2, 0, 1]].tolist()
    assert SEVERAL.indicators(several, 3).tolist() == several.tolist()
    assert class_counts([(0, 2), (), (2,)]) == {0: 1, 2: 2} and class_counts([1, 1, 0]) == {1: 2, 0: 1}
    assert classes_of(3) == (3,) and classes_of(()) == ()
    assert [label_text(label, ("a", "b")) for label in (1, (0, 1), ())] == ["b", "a|b", "(none)"]


def test_images_are_halved_by_their_rarest_class() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]], dtype=np.float32)
    assert SEVERAL.strata(labels).tolist() == [1, 0, 2, 1, 3]
    assert ONE.strata(np.array([2, 0])).tolist() == [2, 0]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_scores_and_likelihood_follow_from_probabilities(task) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20, 4)) * 3
    labels = task.array([(0, 3)] * 10 + [()] * 10 if task is SEVERAL else [1] * 20, 4)
    probabilities = task.probabilities(logits)
    metric = task.metrics["val_loss"]
    assert metric.value(task.scores(probabilities), labels) == pytest.approx(metric.value(logits, labels))
    assert task.likelihood(probabilities, labels) == pytest.approx(-metric.value(logits, labels))
    assert task.scores(probabilities.astype(np.float32)).dtype == np.float32
    for name in set(task.metrics) - {"val_loss", "val_top5_accuracy"}:
        ranked = task.metrics[name].value(task.ranks(probabilities), labels)
        assert ranked == pytest.approx(task.metrics[name].value(logits, labels)), name


def test_a_guess_knows_how_frequent_classes_are() -> None:
    rng = np.random.default_rng(2)
    labels = (rng.random((4000, 3)) < (0.1, 0.3, 0.5)).astype(np.float32)
    loss, value = SEVERAL.guess(labels, 3)
    constant = np.broadcast_to(SEVERAL.scores(labels.mean(0, dtype=float)), labels.shape)
    assert loss == pytest.approx(SEVERAL.metrics["val_loss"].value(constant, labels), rel=1e-6)
    shuffled = SEVERAL.metrics["val_map"].value(rng.normal(size=labels.shape), labels)
    assert value == pytest.approx(shuffled, abs=0.03)
    assert ONE.guess(np.array([0, 0, 0, 1]), 2) == (pytest.approx(np.log(2)), 0.75)


def test_every_metric_of_a_task_is_known_by_its_name() -> None:
    for task in TASKS.values():
        assert task.default_metric in task.metrics
        for name, metric in task.metrics.items():
            assert (METRICS[name].mode, METRICS[name].label) == (metric.mode, metric.label)
    assert Objective.of("val_map").mode == "max"
