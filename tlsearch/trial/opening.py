"""From an assignment to everything that its epochs need."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tlsearch.data import ImageIndex, with_image_size
from tlsearch.errors import DataError
from tlsearch.model import Weights, build_model, resolve_weights
from tlsearch.train import (
    TOP5_MIN_CLASSES,
    Runtime,
    Source,
    Trainer,
    open_runtime,
    out_of_memory_is_infeasible,
)
from tlsearch.trial.frozen import FrozenGuard, guard_frozen
from tlsearch.trial.held import held_index
from tlsearch.trial.sources import SourceInputs, open_source
from tlsearch.types import TransformSpec, TrialAssignment, WeightsSource

_BN_POLICIES = (None, "frozen", "train", "stats")


@dataclass(frozen=True, kw_only=True)
class OpenTrial:
    """A trial before its first step.

    Attributes:
        trainer: Holds the model, frozen to the trial's depth, and its optimiser.
        guard: Of the frozen tensors as they are now.
        train: What training epochs read.
        val: What evaluations read.
    """

    runtime: Runtime
    index: ImageIndex
    weights: Weights
    transform: TransformSpec
    trainer: Trainer
    guard: FrozenGuard
    train: Source
    val: Source


def open_trial(assignment: TrialAssignment, *, index: ImageIndex | None = None) -> OpenTrial:
    """Opens data, weights, model and sources; what the process or the node holds already is taken from there.

    Args:
        index: In place of the data set's whole index.

    Raises:
        UserError: Data, weights or settings break a rule.
        Infeasible: The model does not fit the device.
    """
    config, setup = assignment.config, assignment.setup
    assert config.bn_policy in _BN_POLICIES, f"no trial can take bn_policy {config.bn_policy}"
    runtime = open_runtime(setup.device, setup.precision, setup.num_threads)
    index = index or held_index(setup.data)
    _check_metric(setup.metric, len(index.classes))
    weights = resolve_weights(config.backbone, setup.weights.get(config.backbone, WeightsSource()))
    transform = with_image_size(weights.transform, setup.data.image_size)
    with out_of_memory_is_infeasible("the model"):
        model = build_model(
            config.backbone,
            num_classes=len(index.classes),
            weights=weights,
            image_size=transform.crop_size,
            seed=assignment.seed,
            head_dropout=config.head_dropout,
        )
        model.freeze(config.unfreeze_depth, config.bn_policy)
        model.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    guard = guard_frozen(model)
    inputs = SourceInputs(
        config=config,
        setup=setup,
        index=index,
        transform=transform,
        weights_digest=weights.digest,
        runtime=runtime,
        guard=guard,
    )
    trainer = Trainer(
        model,
        runtime,
        config,
        depth=config.unfreeze_depth,
        num_classes=len(index.classes),
        max_epochs=setup.max_epochs,
    )
    return OpenTrial(
        runtime=runtime,
        index=index,
        weights=weights,
        transform=transform,
        trainer=trainer,
        guard=guard,
        train=open_source(model, inputs, "train"),
        val=open_source(model, inputs, "val"),
    )


def _check_metric(metric: str, num_classes: int) -> None:
    if metric == "val_top5_accuracy" and num_classes < TOP5_MIN_CLASSES:
        raise DataError(f"search.metric {metric} needs {TOP5_MIN_CLASSES} classes or more; the data have {num_classes}")
