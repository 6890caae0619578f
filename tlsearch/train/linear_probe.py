"""The linear probe: a regularised linear classifier on frozen features, for a head to start from.

Of a multi-label task it is one logistic regression for each class, and cross-entropy is the sum of theirs.

Fine-tuning that starts from it moves the pretrained features less than from a random head (LP-FT, Kumar et al. 2022).

N, M images of train and val; F features; C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.logistic import EXACT, Fit, Regression, principal_axes
from tlsearch.train.loop.loss import loss_of

_FIRST_PENALTY = 1.0
_LAST_PENALTY = 1e-6
_STEP = math.sqrt(10)
_ROUGH = 1e-3  # tolerance of the path, which only orders penalties; the chosen one is fitted exactly
_MAX_WORK = {"cpu": 2e9, "cuda": 1e12}  # multiplications of one pass: beyond that a part of the images is taken
_MIN_ROWS_PER_CLASS = 5


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A linear classifier on features as they are: what standardised them is folded into it.

    Attributes:
        weight: float32 (C, F).
        bias: float32 (C,); None where none was asked for.
        penalty: Of the squared weights, half of it beside the mean cross-entropy, in the standardised space.
        standardised: Whether each feature was scaled by its own deviation, not all by the same.
        val_loss: Mean cross-entropy on the validation images; what penalty and scaling were chosen by.
        val_accuracy: Fraction of the validation images that it gets right; of a multi-label task, of all answers.
    """

    weight: Tensor
    bias: Tensor | None
    penalty: float
    standardised: bool
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class _Data:
    """Features after scaling, (rows - shift) / scale, along the principal axes of those of train.

    Attributes:
        problem: The images of train.
        val_coordinates: float32 (M, K).
        val_labels: Of the M images.
        axes: float32 (F, K).
        shift: float32 (F,).
        scale: float32 (F,).
        standardised: See ``Probe``.
    """

    problem: Regression
    val_coordinates: Tensor
    val_labels: Tensor
    axes: Tensor
    shift: Tensor
    scale: Tensor
    standardised: bool


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A penalty, what was fitted with it, and its losses on the images of val, (M,)."""

    penalty: float
    fit: Fit
    losses: Tensor

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


def solve_probe(
    rows: Tensor, labels: Tensor, val_rows: Tensor, val_labels: Tensor, *, num_classes: int, bias: bool = True
) -> Probe:
    """Fits logistic regression by L-BFGS along a path of penalties, from strong to weak.

    Penalty and scaling (all features by the same deviation, or each by its own) are chosen by the loss on the
    validation images, as everything else in a search is; each by its own only where that is better by more than two
    standard errors of the difference, image by image: on 80 training images of digits a wrong choice by 20 validation
    images cost five points. The classifier itself is fitted to the training images alone. A
    part of the training images would choose too weak a penalty wherever it shares groups with the rest.

    Args:
        rows: float32 (N, F), on the device to compute on.
        labels: int64 (N,), each in [0, C); or float32 (N, C) of 0 and 1.
        val_rows: float32 (M, F).
        val_labels: Of the M images, as ``labels``.
        bias: Whether the classifier has one; without it features are scaled and not centred.
    """
    rows, labels = _affordable(rows, labels, num_classes)
    datas = [
        _scaled(rows, labels, val_rows, val_labels, num_classes, bias=bias, standardised=standardised)
        for standardised in (False, True)
    ]
    common, standardised = (_best_on_path(data) for data in datas)
    gains = common.losses - standardised.losses
    chance = gains.std() / math.sqrt(len(gains)) if len(gains) > 1 else gains.abs().sum()
    data, best = (datas[1], standardised) if gains.mean() > 2 * chance else (datas[0], common)
    return _folded(data, _point(data, best.penalty, best.fit, EXACT))


def fit_probe(
    rows: Tensor, labels: Tensor, *, penalty: float, standardised: bool, num_classes: int, bias: bool = True
) -> Probe:
    """Fits the classifier of one penalty and one scaling, as ``solve_probe`` chose them on other images.

    Its figures are those on the images that it is fitted to.
    """
    rows, labels = _affordable(rows, labels, num_classes)
    data = _scaled(rows, labels, rows, labels, num_classes, bias=bias, standardised=standardised)
    return _folded(data, _point(data, penalty, data.problem.zero(), EXACT))


def affordable_rows(num_rows: int, num_features: int, num_classes: int, device_type: str) -> Tensor | None:
    """Which images a probe is fitted to where a pass over all would take too long: rising, always the same.

    Returns:
        int64; None where all are.
    """
    work = _MAX_WORK.get(device_type, _MAX_WORK["cuda"])
    most = max(int(work / (num_features * num_classes)), _MIN_ROWS_PER_CLASS * num_classes)
    if num_rows <= most:
        return None
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[:most].sort().values


def _scaled(
    rows: Tensor,
    labels: Tensor,
    val_rows: Tensor,
    val_labels: Tensor,
    num_classes: int,
    *,
    bias: bool,
    standardised: bool,
) -> _Data:
    shift = rows.mean(0) if bias else torch.zeros_like(rows[0])
    spread = (rows - shift).square().mean(0).sqrt()
    common = spread.square().mean().sqrt().clamp(min=1e-12)
    scale = torch.where(spread > 1e-6 * common, spread, common) if standardised else common.expand_as(spread)
    scaled = (rows - shift) / scale
    energies, axes = principal_axes(scaled)
    problem = Regression(
        coordinates=scaled @ axes, energies=energies.float(), labels=labels, num_classes=num_classes, bias=bias
    )
    return _Data(
        problem=problem,
        val_coordinates=((val_rows - shift) / scale) @ axes,
        val_labels=val_labels,
        axes=axes,
        shift=shift,
        scale=scale,
        standardised=standardised,
    )


def _affordable(rows: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    taken = affordable_rows(len(rows), rows.shape[1], num_classes, rows.device.type)
    return (rows, labels) if taken is None else (rows[taken.to(rows.device)], labels[taken.to(rows.device)])


def _best_on_path(data: _Data) -> _Point:
    """Weakens the penalty until the validation loss rises, then tries half a step to both sides of the best."""
    best, penalty = _point(data, _FIRST_PENALTY, data.problem.zero(), _ROUGH), _FIRST_PENALTY / _STEP
    while penalty >= _LAST_PENALTY:
        point = _point(data, penalty, best.fit, _ROUGH)
        if point.loss >= best.loss:
            break
        best, penalty = point, penalty / _STEP
    beside = [_point(data, best.penalty * factor, best.fit, _ROUGH) for factor in (math.sqrt(_STEP), _STEP**-0.5)]
    return min([best, *beside], key=lambda point: point.loss)


def _point(data: _Data, penalty: float, start: Fit, tolerance: float) -> _Point:
    fit = data.problem.fit(penalty, start, tolerance=tolerance)
    losses = loss_of(data.val_labels).rows(_val_logits(data, fit), data.val_labels)
    return _Point(penalty=penalty, fit=fit, losses=losses)


def _val_logits(data: _Data, fit: Fit) -> Tensor:
    return F.linear(data.val_coordinates, fit.weight, fit.offset)


def _folded(data: _Data, point: _Point) -> Probe:
    logits = _val_logits(data, point.fit)
    plain = (point.fit.weight @ data.axes.t()) / data.scale
    return Probe(
        weight=plain,
        bias=point.fit.offset - plain @ data.shift if data.problem.bias else None,
        penalty=point.penalty,
        standardised=data.standardised,
        val_loss=point.loss,
        val_accuracy=float(loss_of(data.val_labels).hits(logits, data.val_labels)) / len(logits),
    )
