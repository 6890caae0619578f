"""Heads that are solved in one go: against scikit-learn, against leaving each image out for real, without a bias."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.nn import functional as F

from tlsearch.core.types import SOLVED_HEADS
from tlsearch.train import closed_form, solve_layer, spectrum_of

CLASSES = 3


def features(num_rows: int, num_features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes that overlap, features far from 0 and of one scale that is not 1."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_rows) % CLASSES
    centres = torch.randn(CLASSES, num_features, generator=rng)
    return 5 + 3 * (centres[labels] + torch.randn(num_rows, num_features, generator=rng)), labels


def scores(rows: Tensor, layer: closed_form.LinearLayer) -> Tensor:
    return F.linear(rows, layer.weight, layer.bias)


@pytest.mark.parametrize(("num_rows", "num_features"), [(30, 50), (60, 8)])
def test_ridge_is_scikit_learns_on_scaled_features(num_rows: int, num_features: int) -> None:
    rows, labels = features(num_rows, num_features)
    layer = solve_layer(spectrum_of(rows, labels, num_classes=CLASSES), "ridge", 0.2 * (1 / 3) * (2 / 3))

    centred = (rows - rows.mean(0)).numpy()
    scaled = centred / np.sqrt((centred**2).mean())
    wanted = Ridge(alpha=0.2 * num_rows).fit(scaled, np.eye(CLASSES)[labels.numpy()]).predict(scaled)
    ours = scores(rows, layer)
    factor = (ours[0, 0] - ours[0, 1]) / (wanted[0, 0] - wanted[0, 1])
    assert factor > 0
    torch.testing.assert_close(ours, factor * torch.tensor(wanted).float(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("head", ["ridge", "cosine"])
def test_the_scale_is_that_of_images_left_out_for_real(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = features(24, 40)
    seen: list[Tensor] = []

    def kept(scores: Tensor, labels: Tensor) -> float:
        seen.append(scores)
        return 1.0

    monkeypatch.setattr(closed_form, "_scale_of", kept)
    spectrum = spectrum_of(rows, labels, num_classes=CLASSES)
    solve_layer(spectrum, head, 0.5 * (1 / 3) * (2 / 3))
    (left_out,) = seen
    for image in (0, 7, 23):
        others = torch.arange(24) != image
        if head == "ridge":  # in the space of all images, with the sum of the losses as strongly penalised
            model = Ridge(alpha=0.5 * 24).fit(spectrum.rows[others].numpy(), np.eye(CLASSES)[labels[others].numpy()])
            wanted = torch.tensor(model.predict(spectrum.rows[image : image + 1].numpy()))[0].float()
            torch.testing.assert_close(left_out[image], wanted, rtol=1e-3, atol=1e-3)
        else:
            own = F.normalize(spectrum.rows[others], dim=1)[labels[others] == labels[image]].sum(0)
            cosine = F.cosine_similarity(own, spectrum.rows[image], dim=0) * spectrum.rows[image].norm()
            wanted = cosine / spectrum.rows.norm(dim=1).mean()
            torch.testing.assert_close(left_out[image, labels[image]], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [0.1, 1.0, 5.0])
def test_the_scale_has_the_least_cross_entropy(size: float) -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % CLASSES
    some = size * (torch.randn(200, CLASSES, generator=rng) + 1.5 * F.one_hot(labels, CLASSES))
    best = minimize_scalar(
        lambda at: float(F.cross_entropy(some * math.exp(at), labels)), bounds=(-2.3, 4.6), method="bounded"
    )
    assert closed_form._scale_of(some, labels) == pytest.approx(math.exp(best.x), rel=1e-3)


def test_the_scale_has_ends() -> None:
    labels = torch.arange(30) % CLASSES
    sure = F.one_hot(labels, CLASSES).float()
    assert closed_form._scale_of(sure, labels) == 100.0
    assert closed_form._scale_of(-sure, labels) == pytest.approx(0.1, rel=1e-3)


def test_the_scale_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the scale rounding decides on which side of it a step is seen: that must not send the search far away."""
    counts: list[int] = []
    softmax = torch.Tensor.softmax

    def counted(scores: torch.Tensor, dim: int) -> torch.Tensor:
        counts[-1] += 1
        return softmax(scores, dim)

    monkeypatch.setattr(torch.Tensor, "softmax", counted)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 10, (200,), generator=generator)
        counts.append(0)
        closed_form._scale_of(torch.eye(10)[labels] * 0.3 + 0.2 * torch.randn(200, 10, generator=generator), labels)
    assert max(counts) <= 10


def test_logistic_is_scikit_learns_on_scaled_features() -> None:
    rows, labels = features(60, 8)
    layer = solve_layer(spectrum_of(rows, labels, num_classes=CLASSES), "logistic", 0.05)

    centred = (rows - rows.mean(0)).numpy()
    scaled = centred / np.sqrt((centred**2).mean())
    model = LogisticRegression(C=1 / (2 * 0.05 * len(rows)), tol=1e-8, max_iter=1000).fit(scaled, labels.numpy())
    wanted = torch.tensor(model.predict_log_proba(scaled)).float()
    torch.testing.assert_close(scores(rows, layer).log_softmax(1), wanted, rtol=1e-2, atol=1e-2)


def test_cosine_gives_the_class_whose_mean_direction_is_nearest() -> None:
    rows, labels = features(60, 8)
    layer = solve_layer(spectrum_of(rows, labels, num_classes=CLASSES), "cosine", None)
    directions = F.normalize(rows - rows.mean(0), dim=1)
    means = torch.stack([directions[labels == one].mean(0) for one in range(CLASSES)])
    nearest = F.cosine_similarity(directions[:, None], means[None], dim=2).argmax(1)
    assert torch.equal(scores(rows, layer).argmax(1), nearest)


@pytest.mark.parametrize("head", SOLVED_HEADS)
def test_probabilities_are_about_as_sure_as_they_are_right(head: str) -> None:
    rows, labels = features(300, 12)
    layer = solve_layer(spectrum_of(rows[:150], labels[:150], num_classes=CLASSES), head, 0.01)
    probabilities = scores(rows[150:], layer).softmax(1)
    sure, right = probabilities.amax(1).mean(), (probabilities.argmax(1) == labels[150:]).float().mean()
    assert right > 0.6 and abs(sure - right) < 0.1, (sure, right)


@pytest.mark.parametrize("head", SOLVED_HEADS)
def test_a_classifier_without_a_bias(head: str) -> None:
    rows, labels = features(60, 8)
    layer = solve_layer(spectrum_of(rows - 5, labels, num_classes=CLASSES, bias=False), head, 0.05)
    assert layer.bias is None
    assert (scores(rows - 5, layer).argmax(1) == labels).float().mean() > 0.8


def test_alike_features_and_a_single_image_of_a_class_give_numbers() -> None:
    rows = torch.ones(4, 6)
    labels = torch.tensor([0, 0, 1, 2])
    for head in SOLVED_HEADS:
        layer = solve_layer(spectrum_of(rows, labels, num_classes=CLASSES), head, 0.1)
        assert bool(torch.isfinite(scores(rows, layer)).all()), head
