"""The linear probe equals scikit-learn's logistic regression, and is folded back exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train import linear_probe as probe_module
from tlsearch.train import solve_probe


def clusters(num: int, seed: int, num_classes: int = 4, num_features: int = 12) -> tuple[Tensor, Tensor]:
    """Overlapping Gaussian classes on features of very different scales, one of them constant."""
    centres = torch.randn(num_classes, num_features, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % num_classes
    rows = centres[labels] + 1.5 * torch.randn(num, num_features, generator=generator)
    rows = 5 + rows * torch.logspace(-3, 2, num_features)
    rows[:, 3] = 7.0
    return rows, labels


def test_the_probe_is_the_logistic_regression_of_its_penalty() -> None:
    (rows, labels), (val_rows, val_labels) = clusters(200, 0), clusters(120, 1)
    probe = solve_probe(rows, labels, val_rows, val_labels, num_classes=4)
    assert probe.bias is not None
    logits = F.linear(val_rows, probe.weight, probe.bias)
    assert probe.val_loss == pytest.approx(float(F.cross_entropy(logits, val_labels)), abs=1e-4)
    assert probe.val_accuracy == float((logits.argmax(1) == val_labels).float().mean())

    spread = rows.std(0, correction=0).numpy()
    found = []
    for scale in (np.where(spread > 0, spread, 1.0), np.full(12, np.sqrt((spread**2).mean()))):
        shift = rows.numpy().mean(0)
        reference = LogisticRegression(C=1 / (probe.penalty * len(rows)), max_iter=5000, tol=1e-8)
        reference.fit((rows.numpy() - shift) / scale, labels.numpy())
        found.append(reference.predict_log_proba((val_rows.numpy() - shift) / scale))
    ours = torch.log_softmax(logits, 1).numpy()
    assert min(float(np.abs(ours - one).max()) for one in found) < 0.01


@pytest.mark.slow
def test_no_other_penalty_is_clearly_better() -> None:
    (rows, labels), (val_rows, val_labels) = clusters(200, 0), clusters(120, 1)
    probe = solve_probe(rows, labels, val_rows, val_labels, num_classes=4)
    scale = rows.std(0, correction=0).numpy()
    scale[scale == 0] = 1
    standard = (rows.numpy() - rows.numpy().mean(0)) / scale, (val_rows.numpy() - rows.numpy().mean(0)) / scale
    losses = []
    for penalty in np.logspace(-4, 0, 25):
        reference = LogisticRegression(C=1 / (penalty * len(rows)), max_iter=5000)
        log_probs = reference.fit(standard[0], labels.numpy()).predict_log_proba(standard[1])
        losses.append(-log_probs[np.arange(120), val_labels.numpy()].mean())
    assert probe.val_loss <= min(losses) + 0.01


def test_it_repeats_itself_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again = (solve_probe(*clusters(90, 0), *clusters(60, 1), num_classes=4) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first.weight, again.weight) and first.penalty == again.penalty


def test_a_head_without_a_bias_gets_a_probe_without_one() -> None:
    (rows, labels), (val_rows, val_labels) = clusters(200, 0), clusters(120, 1)
    rows, val_rows = rows - 5, val_rows - 5
    probe = solve_probe(rows, labels, val_rows, val_labels, num_classes=4, bias=False)
    assert probe.bias is None
    accuracy = float(((val_rows @ probe.weight.t()).argmax(1) == val_labels).float().mean())
    assert accuracy == probe.val_accuracy > 0.6


@pytest.mark.slow
def test_more_images_than_a_pass_can_take_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    (rows, labels), (val_rows, val_labels) = clusters(1500, 0), clusters(300, 1)
    whole = solve_probe(rows, labels, val_rows, val_labels, num_classes=4)
    monkeypatch.setitem(probe_module._MAX_WORK, "cpu", 500 * 12 * 4)
    assert len(probe_module._affordable(rows, labels, 4)[0]) == 500
    thinned = solve_probe(rows, labels, val_rows, val_labels, num_classes=4)
    assert thinned.val_accuracy == pytest.approx(whole.val_accuracy, abs=0.05)
    monkeypatch.setitem(probe_module._MAX_WORK, "cpu", 1.0)
    assert len(probe_module._affordable(rows, labels, 4)[0]) == 20, "at least five for each class"


def test_separable_classes_end_the_path() -> None:
    labels = torch.arange(40) % 4
    rows = F.one_hot(labels, 4).float() + 0.01 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    probe = solve_probe(rows, labels, rows, labels, num_classes=4)
    assert probe.val_accuracy == 1.0 and torch.isfinite(probe.weight).all()
