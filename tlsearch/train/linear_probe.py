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

from tlsearch.train.loop.loss import loss_of

_FIRST_PENALTY = 1.0
_LAST_PENALTY = 1e-6
_STEP = math.sqrt(10)
_MAX_ITERATIONS = 100
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
    """Features after scaling, and how they were scaled: (rows - shift) / scale."""

    rows: Tensor
    labels: Tensor
    val_rows: Tensor
    val_labels: Tensor
    shift: Tensor
    scale: Tensor
    num_classes: int
    bias: bool
    standardised: bool


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
    common, standardised = (
        _best_on_path(_scaled(rows, labels, val_rows, val_labels, num_classes, bias=bias, standardised=standardised))
        for standardised in (False, True)
    )
    gains = _losses(common, val_rows, val_labels) - _losses(standardised, val_rows, val_labels)
    chance = gains.std() / math.sqrt(len(gains)) if len(gains) > 1 else gains.abs().sum()
    return standardised if gains.mean() > 2 * chance else common


def _losses(probe: Probe, rows: Tensor, labels: Tensor) -> Tensor:
    return loss_of(labels).rows(F.linear(rows, probe.weight, probe.bias), labels)


def fit_probe(
    rows: Tensor, labels: Tensor, *, penalty: float, standardised: bool, num_classes: int, bias: bool = True
) -> Probe:
    """Fits the classifier of one penalty and one scaling, as ``solve_probe`` chose them on other images.

    Its figures are those on the images that it is fitted to.
    """
    rows, labels = _affordable(rows, labels, num_classes)
    data = _scaled(rows, labels, rows, labels, num_classes, bias=bias, standardised=standardised)
    start = torch.zeros(num_classes, rows.shape[1], device=rows.device), torch.zeros(num_classes, device=rows.device)
    return _folded(data, penalty, *_fit(data, penalty, *start))


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
    return _Data(
        rows=(rows - shift) / scale,
        labels=labels,
        val_rows=(val_rows - shift) / scale,
        val_labels=val_labels,
        shift=shift,
        scale=scale,
        num_classes=num_classes,
        bias=bias,
        standardised=standardised,
    )


def _affordable(rows: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    taken = affordable_rows(len(rows), rows.shape[1], num_classes, rows.device.type)
    return (rows, labels) if taken is None else (rows[taken.to(rows.device)], labels[taken.to(rows.device)])


def _best_on_path(data: _Data) -> Probe:
    """Weakens the penalty until the validation loss rises, then tries half a step to both sides of the best."""
    weight = torch.zeros(data.num_classes, data.rows.shape[1], device=data.rows.device)
    offset = torch.zeros(data.num_classes, device=data.rows.device)
    best: tuple[Probe, Tensor, Tensor] | None = None
    penalty = _FIRST_PENALTY
    while penalty >= _LAST_PENALTY:
        weight, offset = _fit(data, penalty, weight, offset)
        probe = _folded(data, penalty, weight, offset)
        if best is not None and probe.val_loss >= best[0].val_loss:
            break
        best = (probe, weight, offset)
        penalty /= _STEP
    assert best is not None
    coarse, weight, offset = best
    near = [coarse.penalty * math.sqrt(_STEP), coarse.penalty / math.sqrt(_STEP)]
    fine = [_folded(data, penalty, *_fit(data, penalty, weight, offset)) for penalty in near]
    return min([coarse, *fine], key=lambda probe: probe.val_loss)


def _fit(data: _Data, penalty: float, weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Minimises mean cross-entropy + penalty / 2 * squared weights from a start; the bias is not penalised."""
    weight = weight.clone().requires_grad_()
    offset = offset.clone().requires_grad_(data.bias)
    optimizer = torch.optim.LBFGS(
        [weight, offset] if data.bias else [weight],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=1e-5,  # with 1e-4 log-probabilities may still be off by a few hundredths
        tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )

    rows_loss = loss_of(data.labels).rows

    def closure() -> float:
        optimizer.zero_grad()
        losses = rows_loss(F.linear(data.rows, weight, offset), data.labels)
        loss = losses.mean() + penalty / 2 * weight.square().sum()
        torch.autograd.backward(loss)
        return loss.item()

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), offset.detach()


def _folded(data: _Data, penalty: float, weight: Tensor, offset: Tensor) -> Probe:
    logits, loss = F.linear(data.val_rows, weight, offset), loss_of(data.val_labels)
    plain = weight / data.scale
    return Probe(
        weight=plain,
        bias=offset - plain @ data.shift if data.bias else None,
        penalty=penalty,
        standardised=data.standardised,
        val_loss=float(loss.rows(logits, data.val_labels).mean()),
        val_accuracy=float(loss.hits(logits, data.val_labels)) / len(logits),
    )
