"""Logistic regression along principal axes is the one that another library finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.logistic import Fit, Regression, principal_axes


def features(num: int, num_features: int) -> tuple[Tensor, Tensor]:
    """Three overlapping classes, centred, on features of which a few have most of the variance."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(num) % 3
    centres = torch.randn(3, num_features, generator=generator)
    rows = centres[labels] + 2 * torch.randn(num, num_features, generator=generator)
    rows = (rows * torch.logspace(1, -2, num_features)) @ torch.linalg.qr(
        torch.randn(num_features, num_features, generator=generator)
    )[0]
    return rows - rows.mean(0), labels


def regression(rows: Tensor, labels: Tensor, *, bias: bool = True) -> tuple[Regression, Tensor]:
    energies, axes = principal_axes(rows)
    coordinates, energies = rows @ axes, energies.float()
    return Regression(coordinates=coordinates, energies=energies, labels=labels, num_classes=3, bias=bias), axes


@pytest.mark.parametrize("shape", [(90, 12), (60, 150)], ids=["tall", "wide"])
def test_axes_are_orthonormal_and_carry_all_features(shape: tuple[int, int]) -> None:
    rows, _ = features(*shape)
    energies, axes = principal_axes(rows)
    coordinates = rows @ axes
    torch.testing.assert_close(axes.t() @ axes, torch.eye(len(energies)), atol=1e-4, rtol=0)
    torch.testing.assert_close(coordinates @ axes.t(), rows, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(coordinates.square().mean(0), energies.float(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("shape", [(90, 12), (60, 150)], ids=["tall", "wide"])
@pytest.mark.parametrize("penalty", [0.3, 1e-3])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_scikit_learns(shape: tuple[int, int], penalty: float, bias: bool) -> None:
    rows, labels = features(*shape)
    problem, axes = regression(rows, labels, bias=bias)
    fit = problem.fit(penalty, problem.zero(), tolerance=1e-5)
    model = LogisticRegression(C=1 / (penalty * len(rows)), fit_intercept=bias, tol=1e-9, max_iter=100_000)
    model.fit(rows.double().numpy(), labels.numpy())
    plain = fit.weight @ axes.t()
    theirs = torch.tensor(model.coef_).float(), torch.tensor(np.resize(model.intercept_, 3)).float()
    chances, objectives = [], []
    for weight, offset in ((plain, fit.offset), theirs):
        logits = rows @ weight.t() + offset
        chances.append(logits.softmax(1))
        objectives.append(float(F.cross_entropy(logits, labels) + penalty / 2 * weight.square().sum()))
    torch.testing.assert_close(*chances, atol=2e-3, rtol=0)
    assert objectives[0] <= objectives[1] + 1e-5


def test_the_start_changes_the_way_and_not_the_end() -> None:
    problem, _ = regression(*features(90, 12))
    start = problem.fit(0.1, problem.zero(), tolerance=1e-3)
    warm, cold = (problem.fit(0.01, one, tolerance=1e-5) for one in (start, problem.zero()))
    logits = [problem.coordinates @ fit.weight.t() + fit.offset for fit in (warm, cold)]
    torch.testing.assert_close(logits[0].log_softmax(1), logits[1].log_softmax(1), atol=2e-3, rtol=0)


def test_what_cannot_be_learned_has_no_weight() -> None:
    """Features that are all the same have no axis; a start where all is certain has no curvature."""
    labels = torch.arange(9) % 3
    problem, axes = regression(torch.zeros(9, 4), labels)
    fit = problem.fit(0.1, problem.zero(), tolerance=1e-5)
    assert torch.equal(fit.weight @ axes.t(), torch.zeros(3, 4)) and float(fit.offset.abs().max()) < 1e-5
    rows, labels = features(90, 12)
    problem, _ = regression(rows, labels)
    certain = Fit(weight=problem.zero().weight, offset=torch.tensor([200.0, 0.0, -200.0]))
    assert torch.isfinite(problem.fit(0.1, certain, tolerance=1e-5).weight).all()
