"""Watches the pretrained features through the first epoch in which the backbone trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tlsearch.errors import Diverged
from tlsearch.train import TrainFigures, feature_drift, probe_features
from tlsearch.trial.opening import OpenTrial

# All three together: a trial that is merely slow, or whose features merely moved, goes on.
_DESTROYED_DRIFT = 0.7
_GUESSING = 0.2  # an accuracy less than this share of the way from the largest class's share to 1
_MIN_IMAGES = 4


def features_before(opened: OpenTrial, depth_before: int, epoch: int) -> Tensor | None:
    """The features of the probe batch, where this epoch is the first to train a pretrained backbone.

    Args:
        opened: In the phase of the epoch.
        depth_before: The unfreeze depth of the epoch before; any in the first epoch.
    """
    begins = opened.trainer.depth > 0 and (epoch == 1 or depth_before == 0)
    if not begins or opened.weights.state is None or len(opened.val) < _MIN_IMAGES:
        return None
    return _features(opened)


def check_features(
    opened: OpenTrial, before: Tensor, figures: TrainFigures, metrics: Mapping[str, float], *, epoch: int
) -> float:
    """The drift of the features through the epoch: 0 none, 1 nothing in common.

    Args:
        before: From ``features_before``.
        metrics: Of the evaluation after the epoch.

    Raises:
        Diverged: The pretrained features are destroyed: they have drifted far, the training loss was no better than
            that of equal odds, and the model does little better than naming the largest class.
    """
    drift = feature_drift(before, _features(opened))
    labels, num_classes = opened.val.labels, len(opened.index.classes)
    largest_share = float(torch.bincount(labels).max()) / len(labels)
    guessing = largest_share + _GUESSING * (1 - largest_share)
    even_odds = math.log(num_classes)
    accuracy = metrics["val_accuracy"]
    if drift >= _DESTROYED_DRIFT and figures.loss >= even_odds and accuracy < guessing:
        raise Diverged(
            f"the pretrained features are destroyed, so the backbone's learning rate is too high: after epoch {epoch} "
            f"their drift is {drift:.2f} (far from {_DESTROYED_DRIFT} on), the training loss {figures.loss:.3g} "
            f"(equal odds have {even_odds:.3g}) and the validation accuracy {accuracy:.3g}"
        )
    return drift


def _features(opened: OpenTrial) -> Tensor:
    return probe_features(opened.trainer.model, opened.val, opened.runtime, depth=opened.trainer.depth)
