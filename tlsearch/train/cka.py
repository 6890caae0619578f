"""How far training moved the pretrained features: linear CKA of the same images' features before and after.

N images of the probe batch, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlsearch.model import StagedModel, batchnorm_layers, normalising_by_batch
from tlsearch.train.device import Runtime
from tlsearch.train.loop.batches import Source, load_batch

PROBE_IMAGES = 64  # one evaluation batch


def probe_features(model: StagedModel, source: Source, runtime: Runtime, *, depth: int) -> Tensor:
    """The pooled inputs of the head for a fixed batch of a split: float32 (N, F) on the device.

    Everything is as in an evaluation, except that batch norm layers whose statistics move normalise by this batch: new
    statistics alone are not drift. The images are spread evenly over the split, so that all classes are among them.
    """
    step = max(1, len(source) // PROBE_IMAGES)
    index = torch.arange(0, len(source), step)[:PROBE_IMAGES]
    model.eval()
    layers = [layer for part in model.parts if part.statistics_move for layer in batchnorm_layers(part)]
    with normalising_by_batch(layers), torch.no_grad(), runtime.autocast():
        rows, _ = load_batch(source, index, runtime)
        features = model.features_of(rows, depth, from_pixels=source.kind == "pixels")
    features = features.float()
    return features.mean(dim=tuple(range(2, features.dim()))) if features.dim() > 2 else features


def feature_drift(before: Tensor, after: Tensor) -> Tensor:
    """1 - linear CKA (Kornblith et al. 2019), debiased for few images: 0 the same geometry, about 1 nothing in common.

    Rotating all features or scaling them alike is not drift. Features that no longer differ between images, or are
    not finite, are 1.

    Args:
        before: float32 (N, F), N above 3.
        after: float32 (N, F) of the same images.

    Returns:
        float64 (), on the features' device: nothing waits for it.
    """
    own, other = _hsic(before, before), _hsic(after, after)
    alike = (own > 0) & (other > 0) & torch.isfinite(after).all()
    drift = (1 - _hsic(before, after) / (own * other).sqrt()).clamp(0, 1)
    return torch.where(alike, drift, 1.0)


def _hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimate of the dependence of two sets of features (Song et al. 2012), up to a factor."""
    kernels = []
    for features in (first.double(), second.double()):
        features = features - features.mean(0)
        kernel = features @ features.t()
        kernels.append(kernel - torch.diag(kernel.diagonal()))
    k, m = kernels
    count = len(first)
    total = (k * m).sum() + k.sum() * m.sum() / ((count - 1) * (count - 2)) - 2 * (k.sum(0) @ m.sum(0)) / (count - 2)
    return total
