"""Linear heads that are solved on frozen features in one go, each a plain linear layer.

Ridge regression and the nearest class mean by cosine have a closed form; logistic regression takes L-BFGS. What squared
errors and cosines lack, a scale that makes probabilities of the scores, is chosen by the cross-entropy of the
leave-one-out scores, which both have in closed form, too: it needs no other images. Of a multi-label task each class
has an offset beside that scale, fitted to Platt's targets (1999).

N images; F features; C classes; K = min(N, F).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.logistic import Regression, principal_axes
from tlsearch.train.loop.loss import loss_of

_MAX_SCALED_ROWS = 4096  # rows that the scale of the scores is chosen by
_NUM_STEPS = 24  # of the search for the scale, at most; usually about six are enough
_CLOSE = 1e-4  # of the scale itself
_SCALES = 0.1, 100.0  # where no image left out is wrong, no scale is too large: an end is needed


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A classifier on features as they are: what centred and scaled them is folded into it.

    Attributes:
        weight: float32 (C, F).
        bias: float32 (C,); None where none was asked for.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Features and what ridge regression with any penalty needs of them: (rows - shift) / scale = U diag(s) V^T.

    Attributes:
        rows: float32 (N, F), centred and scaled: the mean of the squares is 1.
        labels: int64 (N,), or float32 (N, C) of 0 and 1.
        shift: float32 (F,); 0 without a bias.
        scale: One number for all features.
        energies: float64 (K,): s^2 / N.
        axes: float32 (F, K): V.
        projected: float32 (K, C): V^T X^T Y / N, X the rows and Y the classes as 0 and 1, centred with a bias.
        frequencies: float32 (C,): of the classes.
        taken: int64 (M,): the rows that the scale of the scores is chosen by.
        coordinates: float32 (M, K): U diag(s) of these rows.
        leverages: float32 (M, K): (U s)^2 / N of these rows; over (energies + penalty) they add up to the leverages.
        bias: Whether the classifier has one.
    """

    rows: Tensor
    labels: Tensor
    shift: Tensor
    scale: float
    energies: Tensor
    axes: Tensor
    projected: Tensor
    frequencies: Tensor
    taken: Tensor
    coordinates: Tensor
    leverages: Tensor
    bias: bool

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.frequencies)

    @property
    def num_bytes(self) -> int:
        """What its large tensors take."""
        return self.rows.nbytes + self.axes.nbytes + self.coordinates.nbytes + self.leverages.nbytes


def spectrum_of(rows: Tensor, labels: Tensor, *, num_classes: int, bias: bool = True) -> Spectrum:
    """Decomposes features, float32 (N, F), once for all penalties.

    Each product that no penalty changes is made here.
    """
    shift = rows.mean(0) if bias else torch.zeros_like(rows[0])
    centred = rows - shift
    scale = float(centred.square().mean().sqrt().clamp(min=1e-12))
    centred = centred / scale
    num_rows = len(rows)
    energies, axes = principal_axes(centred)
    taken = _spread(num_rows).to(rows.device)
    wanted = loss_of(labels).one_hot(labels, num_classes)
    frequencies, coordinates = wanted.mean(0), centred[taken] @ axes
    return Spectrum(
        rows=centred,
        labels=labels,
        shift=shift,
        scale=scale,
        energies=energies,
        axes=axes,
        projected=axes.t() @ (centred.t() @ (wanted - frequencies if bias else wanted)) / num_rows,
        frequencies=frequencies,
        taken=taken,
        coordinates=coordinates,
        leverages=coordinates.square() / num_rows,
        bias=bias,
    )


def solve_layer(spectrum: Spectrum, head: str, penalty: float | None) -> LinearLayer:
    """Solves one of ``SOLVED_HEADS``.

    Args:
        penalty: Of ridge and logistic: above 0. It is that of cross-entropy; for ridge it is multiplied by the ratio of
            the losses' curvatures where all classes are equally frequent, so that one range suits both.
    """
    if head == "cosine":
        return solve_cosine(spectrum)
    assert penalty is not None, f"a head {head} has a penalty"
    if head == "logistic":
        return solve_logistic(spectrum, penalty=penalty)
    share = float(spectrum.frequencies.mean())  # 1 / C where each image has one class
    return solve_ridge(spectrum, penalty=penalty / (share * (1 - share)))


def solve_logistic(spectrum: Spectrum, *, penalty: float) -> LinearLayer:
    """Logistic regression: multinomial, or one for each class of a multi-label task.

    Minimises mean cross-entropy + penalty * squared weights in the space of ``spectrum``; the bias is not penalised.

    Args:
        penalty: Above 0.
    """
    problem = Regression(
        coordinates=spectrum.rows @ spectrum.axes,
        energies=spectrum.energies.float(),
        labels=spectrum.labels,
        num_classes=spectrum.num_classes,
        bias=spectrum.bias,
    )
    fit = problem.fit(2 * penalty, problem.zero())
    return _layer(spectrum, fit.weight @ spectrum.axes.t(), fit.offset)


def solve_ridge(spectrum: Spectrum, *, penalty: float) -> LinearLayer:
    """Ridge regression on the classes as 0 and 1, scaled to logits.

    Minimises mean squared error + penalty * squared weights in the space of ``spectrum``; the bias is not penalised.
    The leave-one-out scores are those of Cook and Weisberg (1982): the residual over 1 - h, h the leverage.

    Args:
        penalty: Above 0.
    """
    num_rows, labels = len(spectrum.rows), spectrum.labels[spectrum.taken]
    means = spectrum.frequencies if spectrum.bias else torch.zeros_like(spectrum.frequencies)
    shrunk = (1 / (spectrum.energies + penalty)).float()
    along = shrunk[:, None] * spectrum.projected
    leverage = (spectrum.leverages @ shrunk + (1 / num_rows if spectrum.bias else 0.0)).clamp(max=1 - 1e-4)
    wanted = loss_of(labels).one_hot(labels, spectrum.num_classes)
    without = wanted - (wanted - means - spectrum.coordinates @ along) / (1 - leverage[:, None])
    weight = (spectrum.axes @ along).t()
    if labels.dim() == 2:
        return _layer(spectrum, weight, means, *_scale_and_offsets(without, wanted))
    return _layer(spectrum, weight, means, _scale_of(without, labels))


def solve_cosine(spectrum: Spectrum) -> LinearLayer:
    """The class whose mean direction has the largest cosine with the image's features, as a linear layer.

    Dividing by the length of an image's features changes none of its labels, so the layer divides by their mean length.
    Features are centred, so that directions differ (Wang et al. 2019, SimpleShot). In a leave-one-out score an image is
    not part of its class's mean: of s, the sum of its class, and the image's direction d it is
    (s - d) d / |s - d| = (s d - 1) / sqrt(|s|^2 - 2 s d + 1).
    """
    rows, labels = spectrum.rows, spectrum.labels
    lengths = rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    directions = rows / lengths
    sums = torch.zeros(spectrum.num_classes, rows.shape[1], device=rows.device).index_add_(0, labels, directions)
    means = F.normalize(sums, dim=1)
    own, places = labels[spectrum.taken], torch.arange(len(spectrum.taken))
    cosines = directions[spectrum.taken] @ means.t()
    length = sums.norm(dim=1)[own]
    product = cosines[places, own] * length
    cosines[places, own] = (product - 1) / (length.square() - 2 * product + 1).clamp(min=1e-6).sqrt()
    scores = cosines * (lengths[spectrum.taken] / lengths.mean())
    return _layer(spectrum, means / lengths.mean(), torch.zeros_like(sums[:, 0]), _scale_of(scores, own))


def _layer(
    spectrum: Spectrum, weight: Tensor, offset: Tensor, scale: float = 1.0, added: Tensor | float = 0.0
) -> LinearLayer:
    """The layer whose logits are scale * (weight x + offset) + added, x in the space of ``spectrum``."""
    plain = weight * (scale / spectrum.scale)
    bias = offset * scale + added - plain @ spectrum.shift if spectrum.bias else None
    return LinearLayer(weight=plain.contiguous(), bias=bias)


def _spread(num_rows: int) -> Tensor:
    """At most ``_MAX_SCALED_ROWS`` rows, always the same ones."""
    if num_rows <= _MAX_SCALED_ROWS:
        return torch.arange(num_rows)
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[:_MAX_SCALED_ROWS]


def _scale_of(scores: Tensor, labels: Tensor) -> float:
    """The factor that makes logits of scores (M, C): least mean cross-entropy, which is convex in it.

    By Newton's method between bounds that close in.
    """
    low, high = _SCALES
    own = float(scores.gather(1, labels[:, None]).mean())

    def slopes(factor: float) -> tuple[float, float]:
        probabilities = (scores * factor).softmax(1)
        weighted = probabilities * scores
        expected = weighted.sum(1)
        spread = (weighted * scores).sum(1) - expected.square()
        first, second = torch.stack([expected.mean(), spread.mean()]).tolist()
        return first - own, second

    if slopes(high)[0] <= 0:
        return high
    factor = math.sqrt(low * high)
    for _ in range(_NUM_STEPS):
        slope, curvature = slopes(factor)
        low, high = (low, factor) if slope > 0 else (factor, high)
        step = factor - slope / max(curvature, 1e-12)
        near = abs(step - factor) < _CLOSE * factor  # rounding may put so small a step beyond a bound
        step = step if near or low < step < high else math.sqrt(low * high)
        if abs(step - factor) < _CLOSE * factor:
            return step
        factor = step
    return factor


def _scale_and_offsets(scores: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """The factor, one for all classes, and the offsets (C,) that make logits of scores (M, C), by Platt's targets.

    Args:
        labels: float32 (M, C) of 0 and 1.
    """
    positive = labels.sum(0)
    negative = len(labels) - positive
    targets = torch.where(labels > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))
    ends = math.log(_SCALES[0]), math.log(_SCALES[1])
    factor = torch.zeros(1, device=scores.device).requires_grad_()
    offsets = ((positive + 1) / (negative + 1)).log().requires_grad_()
    optimizer = torch.optim.LBFGS([factor, offsets], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        logits = scores * factor.clamp(*ends).exp() + offsets
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        torch.autograd.backward(loss)
        return loss.item()

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(factor.detach().clamp(*ends).exp()), offsets.detach()
