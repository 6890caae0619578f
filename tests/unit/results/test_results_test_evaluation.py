"""Calibration and test evidence against scikit-learn and SciPy; the seal of the test split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss, precision_recall_fscore_support

from tlsearch.core.codec import from_plain, to_plain
from tlsearch.core.errors import DataError, StorageError
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.promotion.test_evaluation import TestEvidence, gather_evidence
from tlsearch.results.promotion.test_split import USES, TestUse, other_uses, read_uses, uses_text
from tlsearch.results.stats.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    cross_entropy,
    expected_calibration_error,
    fit_temperature,
    scaled_probabilities,
)

Logits = tuple[NDArray[np.float64], NDArray[np.int64]]


def _predictions(num: int = 2000, *, sharpness: float = 3.0) -> Logits:
    """Logits whose true probabilities are those of logits / sharpness."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 1.5, (num, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(honest, axis=1)])
    return honest * sharpness, labels


def test_the_temperature_is_found_and_is_the_best() -> None:
    logits, labels = _predictions()
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(3.0, rel=0.1)

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert temperature == pytest.approx(float(np.exp(best.x)), rel=1e-4)


def test_a_temperature_stays_within_its_ends() -> None:
    logits = np.eye(3).repeat(4, axis=0) * 5
    labels = np.arange(3).repeat(4)
    assert fit_temperature(logits, labels) == pytest.approx(MIN_TEMPERATURE, rel=1e-6)
    assert fit_temperature(logits, (labels + 1) % 3) == pytest.approx(MAX_TEMPERATURE, rel=1e-6)


def test_scaling_calibrates_and_keeps_the_order() -> None:
    logits, labels = _predictions()
    before, after = scaled_probabilities(logits), scaled_probabilities(logits, fit_temperature(logits, labels))
    assert np.allclose(before, softmax(logits, axis=1))
    assert expected_calibration_error(before, labels) > 0.15
    assert expected_calibration_error(after, labels) < 0.03
    assert (before.argsort(1) == after.argsort(1)).all()
    assert cross_entropy(before, labels) == pytest.approx(log_loss(labels, before))


def test_the_calibration_error_of_a_case_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    # ten bins: (0.8, 0.9] holds two with accuracy 1/2; (0.5, 0.6] and (0.6, 0.7] one right each
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.6) + abs(1 - 0.7)) / 4
    assert expected_calibration_error(probabilities, labels, num_bins=10) == pytest.approx(expected)


def test_the_evidence_is_scikit_learns() -> None:
    logits, labels = _predictions(300)
    labels[labels == 4] = 3  # a class without a test image
    evidence = gather_evidence(logits, labels, classes=list("abcde"), temperature=2.0)
    predicted = logits.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(5), zero_division=0.0
    )
    assert [one.precision for one in evidence.classes] == pytest.approx(list(precision))
    assert [one.recall for one in evidence.classes] == pytest.approx(list(recall))
    assert [one.f1 for one in evidence.classes] == pytest.approx(list(f1))
    assert [one.images for one in evidence.classes] == list(support)
    assert evidence.accuracy == accuracy_score(labels, predicted)
    keep = predicted != 4  # scikit-learn warns of predicted classes without images
    assert evidence.balanced_accuracy == pytest.approx(np.mean([recall[place] for place in range(5) if support[place]]))
    assert keep.any() and balanced_accuracy_score(labels[keep], predicted[keep]) > 0
    assert sum(map(sum, evidence.confusion)) == 300
    assert from_plain(TestEvidence, json.loads(json.dumps(to_plain(evidence)))) == evidence


def test_a_perfect_score_on_few_images_has_an_interval_and_no_negative_zero() -> None:
    logits = np.eye(3)[[0, 1, 2] * 4] * 1000.0
    evidence = gather_evidence(logits, np.array([0, 1, 2] * 4), classes=list("abc"), temperature=1.0)
    assert evidence.accuracy == 1.0
    expected = binomtest(12, 12).proportion_ci(method="wilson")
    assert evidence.accuracy_interval == pytest.approx((expected.low, expected.high))
    assert f"{evidence.calibration.loss_before:.4f}" == "0.0000"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (("b", "a", "c"), "the same names in another order"),
        (("a", "b"), "the data lack c"),
        (("a", "b", "c", "d"), "the model does not know d"),
        (("a", "b", "x"), "other names: c of the model, x of the data"),
    ],
)
def test_classes_that_differ_are_told_with_both_lists(data: tuple[str, ...], what: str) -> None:
    check_classes(("a", "b", "c"), ("a", "b", "c"))
    with pytest.raises(DataError) as caught:
        check_classes(("a", "b", "c"), data)
    assert what in str(caught.value)
    assert "model: a, b, c" in str(caught.value) and f"data:  {', '.join(data)}" in str(caught.value)


def test_uses_come_back_and_tell_models_apart(tmp_path: Path) -> None:
    uses = [
        TestUse(digest="d", search_id="s", trial=1, model="m1", at=1.5, evidence={"accuracy": 0.5}),
        TestUse(digest="other", search_id="s", trial=2, model="m2", at=2.5),
    ]
    assert read_uses(tmp_path) == []
    (tmp_path / USES).write_text(uses_text(uses))
    assert read_uses(tmp_path) == uses
    assert other_uses(uses, digest="d", model="m1") == []
    assert other_uses(uses, digest="d", model="m2") == [uses[0]]
    assert "evidence" not in uses[0].brief()
    (tmp_path / USES).write_text("{half")
    with pytest.raises(StorageError, match="damaged"):
        read_uses(tmp_path)


def test_classes_agree_in_any_unicode_form() -> None:
    check_classes(("cafe\u0301", "x"), ("caf\u00e9", "x"))  # a model of a version that kept names as folders spell them
    with pytest.raises(DataError, match="in another order"):
        check_classes(("cafe\u0301", "x"), ("x", "caf\u00e9"))
