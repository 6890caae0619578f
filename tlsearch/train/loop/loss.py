"""What training minimises: a cross-entropy with smoothed, weighted or mixed targets. A task has its row in ``LOSSES``.

MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) mix a batch of pixels and give soft targets. B rows of a batch,
C classes, H and W of the images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.device import derive_seed


@dataclass(frozen=True, kw_only=True)
class TrainingLoss(ABC):
    """The loss of a task.

    Its gradient by the logits has one form, ``probabilities(logits) * mass - wanted``, which trains a linear head
    without autograd.

    Attributes:
        label_smoothing: Fraction of each target that is smoothed away.
        class_weights: float32 (C,) on the device; None is 1 for all.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    @staticmethod
    @abstractmethod
    def balanced(labels: Tensor, num_classes: int) -> Tensor:
        """Class weights, float32 (C,), with which rare classes count as much as frequent ones."""

    @staticmethod
    @abstractmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Of the classes, (..., C)."""

    @staticmethod
    @abstractmethod
    def rows(logits: Tensor, labels: Tensor) -> Tensor:
        """The plain loss of each row, (B,)."""

    @staticmethod
    @abstractmethod
    def hits(logits: Tensor, targets: Tensor) -> Tensor:
        """How many rows are right, one number; a row with several answers counts in parts."""

    @staticmethod
    @abstractmethod
    def one_hot(labels: Tensor, num_classes: int) -> Tensor:
        """Labels as probabilities, float32 (B, C)."""

    @staticmethod
    @abstractmethod
    def average(logits: Tensor, log_weights: Tensor) -> Tensor:
        """What gives the weighted mean of several models' probabilities, (B, C).

        Args:
            logits: (B, M, C), of M models.
            log_weights: (M, 1); the weights sum to 1.
        """

    @abstractmethod
    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the rows.

        Args:
            logits: float32 (B, C).
            targets: Labels as the data have them, or probabilities, float32 (B, C).
        """

    @abstractmethod
    def target_rows(self, labels: Tensor, num_classes: int) -> Tensor:
        """float32 (B, C): ``wanted`` of the gradient, smoothing and class weights included."""

    @abstractmethod
    def masses(self, labels: Tensor, wanted: Tensor) -> Tensor | None:
        """``mass`` of the gradient, (B, 1) or (B, C); None is 1.

        Args:
            wanted: From ``target_rows``.
        """


class CrossEntropy(TrainingLoss):
    """Cross-entropy of one class; smoothing spreads a part of the target evenly over all (Szegedy et al. 2016)."""

    @staticmethod
    def balanced(labels: Tensor, num_classes: int) -> Tensor:
        """Images over classes times the class's images, so that the mean over all images is 1.

        As ``sklearn.utils.class_weight.compute_class_weight("balanced")``; a class without images has 0.
        """
        counts = torch.bincount(labels, minlength=num_classes).double()
        num_present = int((counts > 0).sum())
        return torch.where(counts > 0, len(labels) / (num_present * counts.clamp(min=1)), 0.0).float()

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Softmax."""
        return torch.softmax(logits, -1)

    @staticmethod
    def rows(logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(logits, labels, reduction="none")

    @staticmethod
    def hits(logits: Tensor, targets: Tensor) -> Tensor:
        """Rows whose most probable class is that of the (larger share of the) target."""
        return (logits.argmax(1) == (targets if targets.dim() == 1 else targets.argmax(1))).sum()

    @staticmethod
    def one_hot(labels: Tensor, num_classes: int) -> Tensor:
        """1 at the label."""
        return F.one_hot(labels, num_classes).float()

    @staticmethod
    def average(logits: Tensor, log_weights: Tensor) -> Tensor:
        """The logarithm of the mean."""
        return torch.logsumexp(torch.log_softmax(logits, dim=2) + log_weights, dim=1)

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of ``torch.nn.functional.cross_entropy``."""
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def target_rows(self, labels: Tensor, num_classes: int) -> Tensor:
        """What each class's log-probability is weighted with."""
        if labels.dim() == 2:
            rows = labels * (1.0 - self.label_smoothing) + self.label_smoothing / num_classes
        else:
            rows = torch.full((len(labels), num_classes), self.label_smoothing / num_classes, device=labels.device)
            rows.scatter_add_(1, labels[:, None], rows.new_full((len(labels), 1), 1.0 - self.label_smoothing))
        return rows if self.class_weights is None else rows * self.class_weights

    def masses(self, labels: Tensor, wanted: Tensor) -> Tensor | None:
        """The sum of each row's targets, where that may not be 1."""
        plain = self.label_smoothing == 0.0 and self.class_weights is None
        return None if plain else wanted.sum(1, keepdim=True)


class BinaryCrossEntropy(TrainingLoss):
    """Binary cross-entropy, the mean over the classes, as torch's ``BCEWithLogitsLoss``.

    Smoothing moves each answer towards a half, as Keras does; a class's weight is that of its positive part.
    """

    @staticmethod
    def balanced(labels: Tensor, num_classes: int) -> Tensor:
        """Images without the class over images with it: torch's ``pos_weight``; 1 where no image has it."""
        positive = labels.sum(0)
        return torch.where(positive > 0, (len(labels) - positive) / positive.clamp(min=1), 1.0).float()

    @staticmethod
    def probabilities(logits: Tensor) -> Tensor:
        """Sigmoid."""
        return torch.sigmoid(logits)

    @staticmethod
    def rows(logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over the classes: each is a regression of its own."""
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)

    @staticmethod
    def hits(logits: Tensor, targets: Tensor) -> Tensor:
        """The share of each row's classes that are on the right side of a half, summed."""
        return ((logits > 0) == (targets > 0.5)).float().mean(1).sum()

    @staticmethod
    def one_hot(labels: Tensor, num_classes: int) -> Tensor:
        """The labels, which are 0 and 1 already."""
        return labels

    @staticmethod
    def average(logits: Tensor, log_weights: Tensor) -> Tensor:
        """The log odds of the mean."""
        yes, no = (torch.logsumexp(_log_sigmoid(part) + log_weights, dim=1) for part in (logits, -logits))
        return yes - no

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the rows of their mean over the classes."""
        smoothed = self._smoothed(targets)
        total = F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=self.class_weights, reduction="sum")
        return total / logits.shape[1]

    def target_rows(self, labels: Tensor, num_classes: int) -> Tensor:
        """The positive part of each class's loss."""
        rows = self._smoothed(labels) / num_classes
        return rows if self.class_weights is None else rows * self.class_weights

    def masses(self, labels: Tensor, wanted: Tensor) -> Tensor | None:
        """The positive part and the negative part."""
        return wanted + (1.0 - self._smoothed(labels)) / wanted.shape[1]

    def _smoothed(self, targets: Tensor) -> Tensor:
        if self.label_smoothing == 0.0:
            return targets
        return targets * (1.0 - self.label_smoothing) + self.label_smoothing / 2


LOSSES: Mapping[str, type[TrainingLoss]] = {"single_label": CrossEntropy, "multi_label": BinaryCrossEntropy}


def loss_of(labels: Tensor) -> type[TrainingLoss]:
    """The loss of labels as the data have them, which tell their task: see ``tlsearch.core.label_tasks``."""
    return LOSSES["multi_label" if labels.dim() == 2 else "single_label"]


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


def _log_sigmoid(logits: Tensor) -> Tensor:
    """As ``F.logsigmoid``, which exports write as the logarithm of a sigmoid: wrong by tenths at -16."""
    return logits.clamp(max=0) - torch.log1p(torch.exp(-logits.abs()))
