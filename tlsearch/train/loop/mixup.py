"""MixUp (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch of pixels, with soft targets.

B rows of a batch, C classes, H and W of the images.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from tlsearch.train.device import derive_seed
from tlsearch.train.loop.batches import gather


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
            labels: int64 (B,).

        Returns:
            The mixed rows, and their targets as probabilities: float32 (B, C).
        """
        kind = self._kinds[int(self._rng.integers(len(self._kinds)))]
        share = float(self._rng.beta(self._alphas[kind], self._alphas[kind]))
        # A batch is in random order already, so that its neighbour is a random partner.
        partner = (np.arange(len(labels)) + 1) % len(labels)
        index = labels.new_tensor(partner.tolist())
        others = gather(rows, index)
        if kind == "mixup":
            mixed = others.lerp_(rows, share)
        else:
            top, left, height, width = self._box(rows.shape[2], rows.shape[3], 1 - share)
            mixed = rows.clone()
            patch = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
            mixed[patch] = others[patch]
            share = 1 - height * width / (rows.shape[2] * rows.shape[3])
        targets = F.one_hot(labels, self._num_classes).float()
        return mixed, share * targets + (1 - share) * targets[index]

    def _box(self, height: int, width: int, area: float) -> tuple[int, int, int, int]:
        """Top, left, height and width of a patch around a random centre, cut off at the border."""
        half_height, half_width = height * math.sqrt(area) / 2, width * math.sqrt(area) / 2
        middle_y, middle_x = self._rng.uniform(0, height), self._rng.uniform(0, width)
        top, bottom = round(max(0.0, middle_y - half_height)), round(min(height, middle_y + half_height))
        left, right = round(max(0.0, middle_x - half_width)), round(min(width, middle_x + half_width))
        return top, left, bottom - top, right - left
