"""What training minimises: cross-entropy with smoothed, weighted or mixed targets.

MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) mix a batch of pixels and give soft targets. B rows of a batch,
C classes, H and W of the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.device import derive_seed


@dataclass(frozen=True, kw_only=True)
class TrainingLoss:
    """Cross-entropy.

    Attributes:
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et al. 2016).
        class_weights: float32 (C,) on the device: the weight of each class's term; None is 1 for all.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether this is the plain cross-entropy with the labels."""
        return self.label_smoothing == 0.0 and self.class_weights is None

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the rows.

        Args:
            logits: float32 (B, C).
            targets: Labels, int64 (B,), or probabilities, float32 (B, C).
        """
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def target_rows(self, labels: Tensor, num_classes: int) -> Tensor:
        """float32 (B, C): what each class's log-probability is weighted with, smoothing and class weights included.

        Args:
            labels: int64 (B,), or probabilities, float32 (B, C).
        """
        if labels.dim() == 2:
            rows = labels * (1.0 - self.label_smoothing) + self.label_smoothing / num_classes
        else:
            rows = torch.full((len(labels), num_classes), self.label_smoothing / num_classes, device=labels.device)
            rows.scatter_add_(1, labels[:, None], rows.new_full((len(labels), 1), 1.0 - self.label_smoothing))
        return rows if self.class_weights is None else rows * self.class_weights


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """float32 (C,): images over classes times the class's images, so that the mean over all images is 1.

    As ``sklearn.utils.class_weight.compute_class_weight("balanced")``; a class without images has 0.
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    num_present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (num_present * counts.clamp(min=1)), 0.0).float()


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """An epoch's order in which every class is equally frequent: int64 (N,).

    Each class that occurs has N / classes places, or one more. Images of a rare class come again only after all of
    them have come; of a frequent class a part is left out.
    """
    classes = torch.bincount(labels).nonzero()[:, 0]
    classes = classes[torch.randperm(len(classes), generator=generator)]  # who has one place more changes
    quota, extra = divmod(len(labels), len(classes))
    taken = []
    for position, label in enumerate(classes):
        rows = (labels == label).nonzero()[:, 0]
        num_places = quota + (position < extra)
        rounds = -(-num_places // len(rows))
        order = torch.cat([torch.randperm(len(rows), generator=generator) for _ in range(rounds)])
        taken.append(rows[order[:num_places]])
    chosen = torch.cat(taken)
    return chosen[torch.randperm(len(chosen), generator=generator)]


class Mixer:
    """Mixes the batches of one epoch; all chance comes from (seed, epoch).

    Args:
        mixup: Alpha of the Beta distribution that the shares of two images come from; 0 is off.
        cutmix: The same for the area of the patch; where both are on, each batch takes one of them.
    """

    def __init__(self, *, mixup: float, cutmix: float, num_classes: int, seed: int, epoch: int) -> None:
        self._alphas = {"mixup": mixup, "cutmix": cutmix}
        self._kinds = [kind for kind, alpha in self._alphas.items() if alpha > 0]
        self._num_classes = num_classes
        self._rng = np.random.default_rng(derive_seed(seed, epoch, "mixing"))

    def mix(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes each row with another of its batch.

        Args:
            rows: float32 (B, 3, H, W), normalised; left as they are.
            labels: int64 (B,), or probabilities, float32 (B, C).

        Returns:
            The mixed rows, and their targets as probabilities: float32 (B, C).
        """
        kind = self._kinds[int(self._rng.integers(len(self._kinds)))]
        share = float(self._rng.beta(self._alphas[kind], self._alphas[kind]))
        # A batch is in random order already, so that its neighbour is a random partner.
        others = torch.cat([rows[1:], rows[:1]])
        if kind == "mixup":
            mixed = others.lerp_(rows, share)
        else:
            top, left, height, width = self._box(rows.shape[2], rows.shape[3], 1 - share)
            mixed = rows.clone()
            patch = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
            mixed[patch] = others[patch]
            share = 1 - height * width / (rows.shape[2] * rows.shape[3])
        targets = labels if labels.dim() == 2 else F.one_hot(labels, self._num_classes).float()
        return mixed, share * targets + (1 - share) * targets.roll(-1, 0)

    def _box(self, height: int, width: int, area: float) -> tuple[int, int, int, int]:
        """Top, left, height and width of a patch around a random centre, cut off at the border."""
        half_height, half_width = height * math.sqrt(area) / 2, width * math.sqrt(area) / 2
        middle_y, middle_x = self._rng.uniform(0, height), self._rng.uniform(0, width)
        top, bottom = round(max(0.0, middle_y - half_height)), round(min(height, middle_y + half_height))
        left, right = round(max(0.0, middle_x - half_width)), round(min(width, middle_x + half_width))
        return top, left, bottom - top, right - left
