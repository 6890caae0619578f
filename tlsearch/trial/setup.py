"""From an assignment to everything that its epochs need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from tlsearch.core.errors import DataError, WeightsError
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.types import TrialAssignment, TrialSetup
from tlsearch.data import ImageIndex, data_transform
from tlsearch.features import tensor_digests
from tlsearch.model import (
    MAX_DEPTH,
    Adaptation,
    StagedModel,
    build_original,
    fold_batchnorm,
    replace_head,
    resolve_weights,
)
from tlsearch.space.bn_policies import bn_policy
from tlsearch.train import Evaluation, Runtime, Source, Trainer, out_of_memory_is_infeasible, phases, trial_runtime
from tlsearch.trial.bn_recalibration import adapt_to_training_images
from tlsearch.trial.context import Doing, FrozenGuard, Phase, TrialContext, guard_frozen
from tlsearch.trial.head_init import solve_head
from tlsearch.trial.inputs import open_source
from tlsearch.trial.process_cache import (
    BackboneKey,
    HeldBackbone,
    held_folds,
    held_index,
    leave_backbone,
    take_backbone,
)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training needs beside its model.

    Attributes:
        trainer: Holds the model, frozen to the depth of its phase, and its optimiser.
        identity: Digest of the tensors that were frozen before the first step.
        train: What the next training epoch reads.
        views: The training sources of this phase by fixed view, as far as they were opened: later epochs read them
            again.
    """

    trainer: Trainer
    identity: str
    train: Source
    views: Mapping[int, Source] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OpenTrial:
    """A trial between two epochs.

    Attributes:
        changing: Names of the tensors that do not stand still to the end.
        lasting: The plain model's other tensors, live, by name.
        val: What evaluations read.
        start: What the model is worth on val before its first step; None with a random head.
        training: None where the head is solved: nothing trains.
        held: The model as it can be left for the next trial; None where that finds no use for it.
    """

    context: TrialContext
    phase: Phase
    model: StagedModel
    changing: frozenset[str]
    lasting: Mapping[str, torch.Tensor]
    val: Source
    start: Evaluation | None = None
    training: Training | None = None
    held: HeldBackbone | None = None

    @property
    def runtime(self) -> Runtime:
        """Where the trial computes."""
        return self.context.runtime

    @property
    def trainer(self) -> Trainer:
        """Of its training; only where something trains."""
        return self._trained.trainer

    @property
    def train(self) -> Source:
        """Of its training; only where something trains."""
        return self._trained.train

    @property
    def _trained(self) -> Training:
        assert self.training is not None, f"nothing trains a head {self.context.config.head}"
        return self.training


def open_trial(
    assignment: TrialAssignment,
    *,
    index: ImageIndex | None = None,
    epochs_done: int = 0,
    doing: Doing | None = None,
) -> OpenTrial:
    """Opens data, weights, model and sources; what the process or the node holds already is taken from there.

    Args:
        index: In place of the data set's whole index.
        epochs_done: The trial is opened in the phase of the last of them; the tensors are those before the first step
            all the same.
        doing: Hears of work that takes long; None keeps no file of it.

    Raises:
        UserError: Data, weights or settings break a rule.
        Infeasible: The model does not fit the device.
    """
    config, setup = assignment.config, assignment.setup
    runtime = trial_runtime(assignment)
    index = index or _index(setup)
    _check_metric(setup, len(index.classes))
    weights = resolve_weights(config.backbone, setup.weights_of(config.backbone))
    if setup.weights_digests.get(config.backbone, weights.digest) != weights.digest:
        raise WeightsError(
            f"the weights of {config.backbone} are not those that the search began with: they have changed since, or "
            "this node has others"
        )
    transform = data_transform(weights.transform, setup.data, setup.data.size_of(config))
    context = TrialContext(
        config=config,
        setup=setup,
        index=index,
        weights=weights,
        transform=transform,
        runtime=runtime,
        doing=doing or Doing(),
    )
    held, solved = _start(context, assignment.seed)
    if config.solved:
        assert solved is not None, "the head was solved"
        return _solved_trial(context, held, *solved)
    opened = _for_training(context, held, seed=assignment.seed, epochs_done=epochs_done)
    return opened if solved is None else replace(opened, start=solved[0])


def _solved_trial(context: TrialContext, held: HeldBackbone, start: Evaluation, val: Source) -> OpenTrial:
    """The trial of a solved head, which is whole when it is opened: no tensor of it moves any more."""
    return OpenTrial(
        context=context,
        phase=Phase(depth=0, guard=held.guard),
        model=held.model,
        changing=frozenset(f"head.{name}" for name in held.model.head.state_dict()),
        lasting=held.state,
        val=val,
        start=start,
        held=held if _can_be_left(context) else None,
    )


def _for_training(context: TrialContext, held: HeldBackbone, *, seed: int, epochs_done: int) -> OpenTrial:
    """The trial of a model that trains, in the phase of the last epoch done."""
    config, setup, model = context.config, context.setup, held.model
    (_, depth), *later = [phase for phase in phases(config, setup.max_epochs) if phase[0] <= max(1, epochs_done)]
    model.adapt_by(Adaptation.of(config, seed=seed))
    changing = model.changing_names(config.unfreeze_depth, config.bn_policy)
    lasting = {name: tensor for name, tensor in model.merged_state().items() if name not in changing}
    model.freeze(depth, config.bn_policy)
    guard = whole = guard_frozen(model, held.guard.digests)
    num_classes = len(context.index.classes)
    trainer = Trainer(model, context.runtime, config, depth=depth, num_classes=num_classes, max_epochs=setup.max_epochs)
    for first, depth in later:
        trainer.unfreeze(depth, epoch=first)
        guard = guard.only(model)
    phase = Phase(depth=depth, guard=guard, epoch=min(epochs_done + 1, setup.max_epochs))
    train, val = (open_source(model, context, phase, split) for split in ("train", "val"))
    views = _views_of(context, phase, train)
    return OpenTrial(
        context=context,
        phase=phase,
        model=model,
        changing=changing,
        lasting=lasting,
        val=val,
        training=Training(trainer=trainer, identity=whole.digest, train=train, views=views),
        held=replace(held, guard=guard, state=lasting) if _can_be_left(context) else None,
    )


def leave_model(opened: OpenTrial) -> None:
    """Leaves the model for the next trial of this process, where no tensor of its backbone was to move.

    To be called when the trial has ended: it took no step, or ``opened.phase.guard`` has found that none has moved.
    """
    if opened.held is not None:
        leave_backbone(_backbone_key(opened.context), opened.held)


def _start(context: TrialContext, seed: int) -> tuple[HeldBackbone, tuple[Evaluation, Source] | None]:
    """The model on its device before the first step; where its head is solved what it is worth on val, and val."""
    config, runtime = context.config, context.runtime
    left = take_backbone(_backbone_key(context))
    held = left or _built(context, seed)
    model = held.model
    model.head = held.head
    replace_head(model, num_classes=len(context.index.classes), seed=seed, dropout=config.head_dropout)
    with out_of_memory_is_infeasible("the model"):
        # One that was left is on the CPU, as this trial: walking its modules would take longer than solving a head.
        moved = model if left is None else model.head
        moved.to(device=runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if left is None and runtime.folds_batchnorm:
            fold_batchnorm(model)
    if bn_policy(config.bn_policy).recalibrates:
        model.freeze(MAX_DEPTH, "train")  # as it was built: the trial before may have frozen it
        adapt_to_training_images(model, context)
        held = replace(held, guard=FrozenGuard(digests={}))
    if not config.solved and config.head_init != "probe":
        return held, None
    if not held.guard.digests:
        state = model.backbone_state()
        held = replace(held, guard=FrozenGuard(digests=tensor_digests(state)), state=state)
    return held, solve_head(model, context, held.guard)


def _built(context: TrialContext, seed: int) -> HeldBackbone:
    with out_of_memory_is_infeasible("the model"):
        model = build_original(
            context.config.backbone,
            weights=context.weights,
            image_size=context.transform.crop_size,
            channels=context.transform.channels,
            seed=seed,
            features=context.config.features,
        ).train()
    num_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    return HeldBackbone(model=model, head=model.head, guard=FrozenGuard(digests={}), num_bytes=num_bytes)


def _backbone_key(context: TrialContext) -> BackboneKey:
    return BackboneKey(
        backbone=context.config.backbone,
        weights_digest=context.weights.digest,
        image_size=context.transform.crop_size,
        channels=context.transform.channels,
        features=context.config.features,
        folds_batchnorm=context.runtime.folds_batchnorm,
    )


def _can_be_left(context: TrialContext) -> bool:
    """Only on the CPU: a device's memory is free between trials. Random weights are another model for each seed."""
    config, on_cpu = context.config, context.runtime.device.type == "cpu"
    keeps = config.unfreeze_depth == 0 and bn_policy(config.bn_policy).keeps_all
    return keeps and on_cpu and context.weights.state is not None


def _index(setup: TrialSetup) -> ImageIndex:
    """The images of a training."""
    if setup.fold:
        return held_folds(setup.data, setup.folds, digest=setup.data_digest)[setup.fold - 1]
    return held_index(setup.data, refit=setup.refit, digest=setup.data_digest)


def next_phase(opened: OpenTrial, depth: int, *, epoch: int) -> OpenTrial:
    """The same trial with more stages training from ``epoch`` on, and sources that begin at the new boundary.

    Raises:
        FrozenMoved: A tensor that was frozen until now has changed.
    """
    model, training = opened.model, opened._trained
    opened.phase.guard.check(model)
    training.trainer.unfreeze(depth, epoch=epoch)
    context, phase = opened.context, Phase(depth=depth, guard=opened.phase.guard.only(model), epoch=epoch)
    train, val = (open_source(model, context, phase, split) for split in ("train", "val"))
    training = replace(training, train=train, views=_views_of(context, phase, train))
    return replace(opened, phase=phase, val=val, training=training)


def next_epoch(opened: OpenTrial, *, epoch: int) -> OpenTrial:
    """The same trial in the same phase, reading what ``epoch`` reads: another fixed view, where there are such."""
    context, phase = opened.context, replace(opened.phase, epoch=epoch)
    view = context.view(phase, "train")
    if view is None:
        return opened
    training = opened._trained
    train = training.views.get(view) or open_source(opened.model, context, phase, "train")
    return replace(opened, phase=phase, training=replace(training, train=train, views={**training.views, view: train}))


def _views_of(context: TrialContext, phase: Phase, train: Source) -> dict[int, Source]:
    view = context.view(phase, "train")
    return {} if view is None else {view: train}


def _check_metric(setup: TrialSetup, num_classes: int) -> None:
    needed = TASKS[setup.data.task].metrics[setup.metric].min_classes
    if num_classes < needed:
        raise DataError(f"search.metric {setup.metric} needs {needed} classes or more; the data have {num_classes}")
