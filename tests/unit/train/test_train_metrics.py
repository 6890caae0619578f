"""Metrics equal scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics as sk

from tlsearch.train import classification_metrics


@pytest.mark.parametrize(("num_classes", "num_labels"), [(2, 2), (5, 5), (12, 12), (12, 7), (3, 1)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_metrics_equal_scikit_learn(num_classes: int, num_labels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_labels, (97,), generator=generator)
    logits = torch.randn(97, num_classes, generator=generator)
    logits[torch.arange(97), labels] += 1.0
    found = classification_metrics(logits, labels)
    predicted = logits.argmax(1)
    assert found["val_accuracy"] == sk.accuracy_score(labels, predicted)
    assert found["val_macro_f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-12
    )
    assert found["val_balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted), abs=1e-12)
    expected_loss = sk.log_loss(labels, logits.double().softmax(1), labels=range(num_classes))
    assert found["val_loss"] == pytest.approx(expected_loss, rel=1e-5)


def test_top5_only_from_ten_classes() -> None:
    labels = torch.arange(12) % 9
    assert "val_top5_accuracy" not in classification_metrics(torch.randn(12, 9), labels)
    logits = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(40) % 10
    found = classification_metrics(logits, labels)["val_top5_accuracy"]
    assert found == pytest.approx(sk.top_k_accuracy_score(labels, logits, k=5), abs=1e-12)


def test_logits_that_are_not_finite_show_in_the_loss() -> None:
    logits = torch.zeros(4, 3)
    logits[2, 1] = float("nan")
    assert not torch.isfinite(torch.tensor(classification_metrics(logits, torch.tensor([0, 1, 2, 0]))["val_loss"]))
