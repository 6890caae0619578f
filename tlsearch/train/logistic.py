"""Penalised logistic regression on features, by L-BFGS along their principal axes.

The Hessian is about the curvature of the loss times the second moments of the features, plus the penalty (Boehning
1992 bounds it by such a product). Along the principal axes that is a diagonal, so a scale for each coordinate takes the
spread of the features' variances out of the problem. With the same tolerance 0.4 to 0.8 of the passes of plain L-BFGS
then end no higher (emoji's features of three backbones).

N images; F features; C classes; K = min(N, F) axes, fewer where features depend on each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.loop.loss import loss_of

EXACT = 1e-5  # a tolerance
_MAX_ITERATIONS = 100
_NUM_UPDATES = 10  # that L-BFGS remembers
_MIN_CURVATURE = 1e-6


def principal_axes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvectors of the features' second moments, in float64 by the smaller of the two Gram matrices.

    Args:
        rows: float32 (N, F).

    Returns:
        The mean squares along the axes, float64 (K,), rising, and the axes, float32 (F, K).
    """
    num_rows, num_features = rows.shape
    if num_rows > num_features:
        energies, axes = torch.linalg.eigh((rows.t() @ rows).double() / num_rows)
        return energies.clamp(min=0.0), axes.float()
    wide = rows.double()
    energies, left = torch.linalg.eigh(wide @ wide.t() / num_rows)
    spans = energies > 1e-10 * energies.max()
    energies, left = energies[spans], left[:, spans]
    return energies, ((wide.t() @ left) / (energies * num_rows).sqrt()).float()


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A classifier along the axes.

    Attributes:
        weight: float32 (C, K).
        offset: float32 (C,); 0 without a bias.
    """

    weight: Tensor
    offset: Tensor


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Images along their principal axes, and their labels: multinomial, or one regression for each class of several.

    Attributes:
        coordinates: float32 (N, K).
        energies: float32 (K,): the mean squares of the coordinates.
        labels: int64 (N,), or float32 (N, C) of 0 and 1.
        num_classes: C.
        bias: Whether the classifier has an offset. It is not penalised.
    """

    coordinates: Tensor
    energies: Tensor
    labels: Tensor
    num_classes: int
    bias: bool

    def zero(self) -> Fit:
        """Where a path of penalties begins."""
        weight = self.coordinates.new_zeros(self.num_classes, len(self.energies))
        return Fit(weight=weight, offset=weight.new_zeros(self.num_classes))

    def fit(self, penalty: float, start: Fit, *, tolerance: float = EXACT) -> Fit:
        """Minimises mean cross-entropy + penalty / 2 * squared weights.

        Args:
            penalty: Above 0.
            start: Of a penalty near by; its curvature scales the coordinates.
            tolerance: Largest gradient along a scaled coordinate. Half the sum of their squares is about what the
                objective lies above its minimum.
        """
        loss = loss_of(self.labels)
        chances = loss.probabilities(F.linear(self.coordinates, start.weight, start.offset))
        curvature = (chances * (1 - chances)).mean().clamp(min=_MIN_CURVATURE)
        scale, offset_scale = (curvature * self.energies + penalty).rsqrt(), curvature.rsqrt()
        scaled = self.coordinates * scale
        shares = penalty / 2 * scale.square()
        weight = (start.weight / scale).requires_grad_()
        offset = (start.offset / offset_scale).requires_grad_(self.bias)
        optimizer = torch.optim.LBFGS(
            [weight, offset] if self.bias else [weight],
            max_iter=_MAX_ITERATIONS,
            history_size=_NUM_UPDATES,
            tolerance_grad=tolerance,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def closure() -> float:
            optimizer.zero_grad()
            losses = loss.rows(F.linear(scaled, weight, offset * offset_scale), self.labels)
            objective = losses.mean() + (weight.square() @ shares).sum()
            torch.autograd.backward(objective)
            return objective.item()

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
        return Fit(weight=weight.detach() * scale, offset=offset.detach() * offset_scale)
