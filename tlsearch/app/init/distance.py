"""How far the images are from those that a backbone was pretrained on, measured: which of its layers know them best.

Two linear probes are compared on the same images: on the features of the last stage, which are made for the classes of
the pretraining, and on those of the stage before, which are more general. Where the last stage adds much, its
classes are near; where it adds nothing, the domain is far, and the late layers have to be trained (transfer by layer:
Yosinski et al., arXiv 1411.1792; intermediate features of far domains: Evci et al., arXiv 2201.03529).

N images of C classes; features are float32 (N, F).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.core.types import TransformSpec, WeightsSource
from tlsearch.data import (
    ImageIndex,
    Split,
    as_tensor,
    eval_image,
    measure_channels,
    normalise,
    read_image,
    with_image_size,
)
from tlsearch.model import StagedModel, build_model, resolve_weights

Distance = Literal["near", "middle", "far"]
_MAX_TRAIN = 400
_MAX_VAL = 200
_BATCH = 32
_MIN_VAL = 40  # below that the two probes are not distinguishable


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What two probes say.

    Attributes:
        last: Accuracy on validation images of the probe on the last stage's features.
        before: Of the probe on the features of the stage before.
        chance: One standard error of their difference.
        num_val: Validation images that were used.
    """

    backbone: str
    last: float
    before: float
    chance: float
    num_val: int

    @property
    def distance(self) -> Distance:
        """Near where the last stage gets nearly all right or adds much of the rest, far where it adds nothing."""
        if 1 - self.last <= self.chance:
            return "near"
        gain = self.last - self.before
        if gain <= self.chance:
            return "far"
        return "near" if gain >= 0.4 * (1 - self.before) else "middle"


@torch.no_grad()
def measure_distance(
    index: ImageIndex, backbone: str, source: WeightsSource, *, image_size: int | None
) -> Measured | None:
    """Compares the probes of one backbone on at most 400 images of train and 200 of val.

    Returns:
        None where there are too few validation images to tell.

    Raises:
        WeightsError: The weights cannot be read.
        DataError: An image cannot be read.
    """
    if len(index.splits["val"]) < _MIN_VAL:
        return None
    weights = resolve_weights(backbone, source)
    moments = () if index.pixels.is_rgb else measure_channels(index)
    transform = with_image_size(weights.transform.for_pixels(index.pixels, *moments), image_size)
    num_classes = len(index.classes)
    model = build_model(
        backbone,
        num_classes=num_classes,
        weights=weights,
        image_size=transform.crop_size,
        channels=transform.channels,
        seed=0,
    ).eval()
    train, val = index.splits["train"], index.splits["val"]
    chosen = [_spread(split, most) for split, most in ((train, _MAX_TRAIN), (val, _MAX_VAL))]
    found = [
        _features(model, index, [split.keys[i] for i in rows], transform)
        for split, rows in zip((train, val), chosen, strict=True)
    ]
    labels = [
        torch.from_numpy(index.label_array(name)[rows]) for name, rows in zip(("train", "val"), chosen, strict=True)
    ]
    before, last = (_probe(found[0][layer], labels[0], found[1][layer], labels[1]) for layer in (0, 1))
    num_val = len(labels[1])
    return Measured(backbone=backbone, last=last, before=before, chance=math.sqrt(0.25 / num_val), num_val=num_val)


def _probe(rows: Tensor, labels: Tensor, val_rows: Tensor, val_labels: Tensor) -> float:
    """The best validation accuracy of ridge regressions to one-hot labels, all penalties by one decomposition.

    Enough to compare layers, and a hundred times faster than the logistic regression that heads start from.
    """
    shift, targets = rows.mean(0), F.one_hot(labels).float()
    centred, level = rows - shift, targets.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    against = (val_rows - shift) @ centred.T @ vectors
    turned = vectors.T @ (targets - level)
    scores = [
        level + against @ (turned / (values.clamp(min=0) + penalty * values.mean())[:, None])
        for penalty in (0.01, 0.1, 1.0, 10.0)
    ]
    return max(float((one.argmax(1) == val_labels).float().mean()) for one in scores)


def _spread(split: Split, most: int) -> list[int]:
    """A limited number of images, of every class in turn."""
    by_class: dict[int, list[int]] = defaultdict(list)
    for row, label in enumerate(split.labels):
        assert isinstance(label, int), "distances are measured where images have one class"
        by_class[label].append(row)
    share = max(1, most // len(by_class))
    return [row for rows in by_class.values() for row in rows[:: max(1, math.ceil(len(rows) / share))]]


def _features(model: StagedModel, index: ImageIndex, keys: Sequence[str], spec: TransformSpec) -> tuple[Tensor, Tensor]:
    """What goes into the last stage, averaged over the image, and what goes into the head."""

    def pixels(key: str) -> Tensor:
        return as_tensor(eval_image(read_image(index, key), spec).copy()).permute(2, 0, 1)

    before, last = [], []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(keys), _BATCH):
            batch = normalise(torch.stack(list(pool.map(pixels, keys[start : start + _BATCH]))), spec)
            entering = model.forward_prefix(batch.contiguous(memory_format=torch.channels_last), 1)
            before.append(_averaged(entering))
            last.append(model.forward_prefix(entering, 0, behind=1).flatten(1))
    return torch.cat(before), torch.cat(last)


def _averaged(features: Tensor) -> Tensor:
    """(N, C, H, W) or tokens (N, T, C) to (N, C)."""
    return features.mean((2, 3)) if features.dim() == 4 else features.mean(1) if features.dim() == 3 else features
