"""Losses, heads and probes of images with any number of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tlsearch.core.label_tasks import TASKS
from tlsearch.train import mixed_with_labels, solve_layer, solve_probe, spectrum_of
from tlsearch.train.closed_form import solve_ridge
from tlsearch.train.loop.loss import LOSSES, BinaryCrossEntropy, CrossEntropy, Mixer, loss_of

TASK = TASKS["multi_label"]


def separable(num: int, *, classes: int = 4, features: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, F) in which each class is a direction of its own, with noise; labels (N, C)."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(num, classes, generator=generator) < torch.tensor([0.1, 0.3, 0.5, 0.7])[:classes]).float()
    directions = torch.randn(classes, features, generator=torch.Generator().manual_seed(9))
    return labels @ directions + 0.8 * torch.randn(num, features, generator=generator) + 2.0, labels


def test_labels_tell_their_loss() -> None:
    assert loss_of(torch.zeros(4, 3)) is BinaryCrossEntropy
    assert loss_of(torch.zeros(4, dtype=torch.int64)) is CrossEntropy
    assert set(LOSSES) == set(TASKS)


def test_the_loss_is_torchs_and_the_metrics() -> None:
    logits, labels = torch.randn(9, 4), separable(9)[1]
    found = BinaryCrossEntropy().total(logits, labels)
    assert float(found) / 9 == pytest.approx(float(F.binary_cross_entropy_with_logits(logits, labels)), rel=1e-5)
    assert float(found) / 9 == pytest.approx(TASK.metrics["val_loss"].value(logits.numpy(), labels.numpy()), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_target_rows_and_masses_give_the_gradient(smoothing: float, weighted: bool) -> None:
    labels = separable(9)[1]
    logits = torch.randn(9, 4, requires_grad=True)
    weights = torch.rand(4) + 0.5 if weighted else None
    objective = BinaryCrossEntropy(label_smoothing=smoothing, class_weights=weights)
    torch.autograd.backward(objective.total(logits, labels))
    wanted = objective.target_rows(labels, 4)
    mass = objective.masses(labels, wanted)
    torch.testing.assert_close(torch.sigmoid(logits.detach()) * mass - wanted, logits.grad)


def test_smoothing_moves_answers_towards_a_half() -> None:
    logits, labels = torch.randn(6, 4), separable(6)[1]
    smoothed = labels * 0.8 + 0.1
    expected = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="sum") / 4
    assert float(BinaryCrossEntropy(label_smoothing=0.2).total(logits, labels)) == pytest.approx(float(expected))


def test_balanced_weights_are_torchs_pos_weight() -> None:
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]])
    assert BinaryCrossEntropy.balanced(labels, 3).tolist() == pytest.approx([3.0, 1 / 3, 1.0])
    logits = torch.randn(4, 3)
    weights = BinaryCrossEntropy.balanced(labels, 3)
    expected = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="sum") / 3
    assert float(BinaryCrossEntropy(class_weights=weights).total(logits, labels)) == pytest.approx(float(expected))


def test_hits_are_the_share_of_right_answers() -> None:
    logits = torch.tensor([[1.0, -1, 2, -2], [1, 1, 1, 1]])
    labels = torch.tensor([[1.0, 0, 1, 1], [0, 0, 0, 0]])
    assert float(BinaryCrossEntropy.hits(logits, labels)) == pytest.approx(0.75)


def test_averages_are_of_probabilities() -> None:
    logits, weights = torch.randn(5, 3, 4, dtype=torch.float64), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    found = torch.sigmoid(BinaryCrossEntropy.average(logits, weights.log()[:, None]))
    torch.testing.assert_close(found, (torch.sigmoid(logits) * weights[:, None]).sum(1))


def test_mixing_mixes_labels_as_they_are() -> None:
    rows, labels = torch.randn(4, 3, 8, 8), separable(4)[1]
    mixed, targets = Mixer(mixup=0.4, cutmix=0.0, num_classes=4, seed=1, epoch=1).mix(rows, labels)
    share = float(((mixed - rows.roll(-1, 0)) / (rows - rows.roll(-1, 0))).median())
    torch.testing.assert_close(targets, share * labels + (1 - share) * labels.roll(-1, 0), atol=1e-4, rtol=1e-4)


def test_a_teachers_probabilities_are_mixed_with_labels() -> None:
    probabilities, labels = torch.rand(5, 4), separable(5)[1]
    torch.testing.assert_close(mixed_with_labels(probabilities, labels), (probabilities + labels) / 2)


def test_the_probe_is_a_logistic_regression_of_each_class() -> None:
    rows, labels = separable(300)
    val_rows, val_labels = separable(150, seed=1)
    probe = solve_probe(rows, labels, val_rows, val_labels, num_classes=4)
    logits = F.linear(val_rows, probe.weight, probe.bias)
    assert TASK.metrics["val_map"].value(logits.numpy(), val_labels.numpy()) > 0.9
    assert probe.val_loss == pytest.approx(float(BinaryCrossEntropy.rows(logits, val_labels).mean()), rel=1e-4)
    shift, scale = rows.mean(0), (rows - rows.mean(0)).square().mean().sqrt()
    for place in range(4):
        own = LogisticRegression(C=1 / (probe.penalty * 300), tol=1e-8, max_iter=1000)
        if probe.standardised:
            scale = (rows - shift).square().mean(0).sqrt()
        own.fit(((rows - shift) / scale).numpy(), labels[:, place].numpy())
        theirs = own.decision_function(((val_rows - shift) / scale).numpy())
        np.testing.assert_allclose(logits[:, place].numpy(), theirs, atol=0.05)


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_solved_heads_rank_and_are_calibrated(head: str) -> None:
    rows, labels = separable(400)
    val_rows, val_labels = separable(400, seed=1)
    layer = solve_layer(spectrum_of(rows, labels, num_classes=4), head, 0.01)
    logits = F.linear(val_rows, layer.weight, layer.bias).numpy()
    metrics = TASK.values(logits, val_labels.numpy())
    guess, _ = TASK.guess(val_labels.numpy(), 4)
    assert metrics["val_map"] > 0.9 and metrics["val_micro_f1"] > 0.8
    assert metrics["val_loss"] < 0.75 * guess
    shares = TASK.probabilities(logits).mean(0)
    np.testing.assert_allclose(shares, val_labels.mean(0).numpy(), atol=0.06)


def test_ridge_on_one_class_an_image_ranks_as_that_of_a_single_label() -> None:
    rows, labels = separable(200)
    one = labels.argmax(1)
    hot = F.one_hot(one, 4).float()
    single = solve_ridge(spectrum_of(rows, one, num_classes=4), penalty=0.1)
    several = solve_ridge(spectrum_of(rows, hot, num_classes=4), penalty=0.1)
    ratio = several.weight / single.weight
    assert float(ratio.std() / ratio.mean()) < 1e-3, "the same layer up to its scale"
