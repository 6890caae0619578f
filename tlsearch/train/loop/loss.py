"""What training minimises: cross-entropy with smoothed, weighted or mixed targets.

N images of the split, B rows of a batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Objective:
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
        """float32 (B, C): what each class's log-probability is weighted with, smoothing and class weights included."""
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
