"""Watches the pretrained features through the first epoch in which the backbone trains."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tlsearch.core.errors import Diverged
from tlsearch.core.label_tasks import task_of
from tlsearch.core.types import TrialConfig
from tlsearch.space.adapt_methods import PLAIN
from tlsearch.space.bn_policies import bn_policy
from tlsearch.train import Reading, TrainFigures, check_finite, feature_drift, probe_features
from tlsearch.trial.setup import OpenTrial

# All three together: a trial that is merely slow, or whose features merely moved, goes on.
_DISTORTED_DRIFT = 0.7
_GUESSING = 0.2  # an accuracy, or a mAP, less than this share of the way from that of a guess to 1
_MIN_IMAGES = 4

# After a quarter of the epoch, when the accuracy is not yet known (docs/dimensions.md has what this rests on).
_DISTORTED_EARLY_DRIFT = 0.75
_DISTORTED_EARLY_DRIFT_WITHOUT_BN = 0.85  # of a transformer features that drifted by 0.76 came back to 0.59
_EARLY_PART = 0.25
_MIN_EARLY_STEPS = 8


class FeatureWatch:
    """The features of the probe batch through one epoch, from before its first step on.

    Args:
        opened: In the phase of the epoch.
    """

    def __init__(self, opened: OpenTrial, *, epoch: int) -> None:
        self._opened, self._epoch = opened, epoch
        labels = opened.val.labels.numpy()
        task = task_of(labels)
        self._metric = task.metrics[task.default_metric]
        self._early_drift = _early_drift(opened.context.config)
        self._even_odds, self._guessed = task.guess(labels, len(opened.context.index.classes))
        self._before = self._features()
        self._losses: list[Tensor] = []  # of the steps before an early look
        self._look: Reading | None = None  # what the early look has seen, on its way from the device
        self._look_at = ""

    def after_step(self, step: int, num_steps: int, loss: Tensor) -> None:
        """Looks at the features after a quarter of the epoch: most that are distorted are so by then.

        Only where batch norm keeps all it has, or there is none: with others, features that had drifted as far were
        seen to recover. Nor with adapted stages, of which nothing was measured.

        Args:
            step: Steps done.
            loss: Mean over the rows of this step.

        Raises:
            Diverged: The features have drifted far, and the loss of the latest steps is not better than that of equal
                odds, or not finite.
        """
        look_at = math.ceil(num_steps * _EARLY_PART)
        if look_at >= _MIN_EARLY_STEPS and look_at // 2 < step <= look_at:
            self._losses.append(loss)
            if step == look_at:
                self._look_at = f"after {step} of the {num_steps} steps of epoch {self._epoch}"
                self._look = self._begin_look()
        if self._look is not None and self._look.arrived:
            look, self._look = self._look, None
            self._judge(look)

    def _begin_look(self) -> Reading:
        """The mean of the latest losses, and the drift where it may count and the loss is not known to be low."""
        recent = torch.stack(self._losses).mean().double()
        loss = Reading(recent)
        low = loss.arrived and loss.values()[0] < self._even_odds
        if low or self._early_drift is None:
            return loss
        drift = self._drift()
        self._opened.trainer.model.train()
        return Reading(torch.stack([recent, drift]))

    def _judge(self, look: Reading) -> None:
        recent, *drifts = look.values()
        check_finite(recent, "training")
        for drift in drifts:
            if self._early_drift is not None and drift >= self._early_drift and recent >= self._even_odds:
                figure = f"the latest training loss {recent:.3g}"
                raise self._distorted(self._look_at, drift, self._early_drift, figure)

    def after_epoch(self, figures: TrainFigures, metrics: Mapping[str, float]) -> float:
        """The drift of the features through the epoch, in [0, 1]: 0 none, 1 nothing in common.

        Args:
            metrics: Of the evaluation after the epoch.

        Raises:
            Diverged: The pretrained features are distorted: they have drifted far, the training loss was not better
                than that of a guess, and the model does little better than one that knows how frequent classes are.
        """
        if self._look is not None:
            self._judge(self._look)
        drift = float(self._drift())
        guessing = self._guessed + _GUESSING * (1 - self._guessed)
        value = metrics[self._metric.name]
        if drift >= _DISTORTED_DRIFT and figures.loss >= self._even_odds and value < guessing:
            figure = f"the training loss {figures.loss:.3g} and the {self._metric.label} {value:.3g}"
            raise self._distorted(f"after epoch {self._epoch}", drift, _DISTORTED_DRIFT, figure)
        return drift

    def _features(self) -> Tensor:
        trainer = self._opened.trainer
        return probe_features(trainer.model, self._opened.val, self._opened.runtime, depth=trainer.depth)

    def _drift(self) -> Tensor:
        return feature_drift(self._before, self._features())

    def _distorted(self, when: str, drift: float, far: float, figures: str) -> Diverged:
        return Diverged(
            f"the pretrained features are distorted, so the backbone's learning rate is too high: {when} "
            f"their drift is {drift:.2f} (far from {far} on), {figures}; a guess has the loss {self._even_odds:.3g}"
        )


def _early_drift(config: TrialConfig) -> float | None:
    """From which drift on an early look finds the features distorted; None where it does not look at them."""
    if config.adapt != PLAIN.name:
        return None
    if config.bn_policy is None:
        return _DISTORTED_EARLY_DRIFT_WITHOUT_BN
    return _DISTORTED_EARLY_DRIFT if bn_policy(config.bn_policy).keeps_all else None


def watch_features(opened: OpenTrial, depth_before: int, epoch: int) -> FeatureWatch | None:
    """Watches where this epoch is the first to train a pretrained backbone.

    Args:
        opened: In the phase of the epoch.
        depth_before: The unfreeze depth of the epoch before; any in the first epoch.
    """
    begins = opened.trainer.depth > 0 and (epoch == 1 or depth_before == 0)
    if not begins or opened.context.weights.state is None or len(opened.val) < _MIN_IMAGES:
        return None
    return FeatureWatch(opened, epoch=epoch)
