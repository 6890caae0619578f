"""One trial without a search engine: all of it, its first batch alone, or the model that it trained."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.config.checkpoint_meta import META_FILE, ModelFile, ModelMeta, read_model_file
from tlsearch.core.errors import Diverged, Infeasible, StorageError, UserError
from tlsearch.core.types import (
    Decision,
    EndReason,
    EpochReport,
    Reporter,
    RunningTrial,
    TrialAssignment,
    TrialConfig,
    TrialOutcome,
    TrialSetup,
    best_seen,
)
from tlsearch.data import ImageIndex, Split
from tlsearch.model import StagedModel, build_model, meta_model
from tlsearch.space.backbones import backbone_facts
from tlsearch.train import evaluate, in_batches, read_model_state, release_memory
from tlsearch.train.loop.evaluation import forward_features
from tlsearch.trial.finetuning import BEST_FOLDER, RUNNING_FOLDER, FineTuning
from tlsearch.trial.fold_training import open_running
from tlsearch.trial.process_cache import held_index
from tlsearch.trial.setup import open_trial

_log = logging.getLogger(__name__)


def run_trial(assignment: TrialAssignment, reporter: Reporter) -> TrialOutcome:
    """Runs a trial until the reporter stops it or its epochs, or folds, are done.

    Epochs that a running checkpoint holds are reported again first. At the end the running checkpoint is deleted.
    An interruption (KeyboardInterrupt) passes through and leaves it.
    """
    seen: list[EpochReport] = []
    error = ""
    try:
        reason = _run(open_running(assignment), assignment.setup.num_reports, reporter, seen)
    except Diverged as problem:
        reason, error = EndReason.DIVERGED, str(problem)
    except Infeasible as problem:
        reason, error = EndReason.MEMORY, str(problem)
    except Exception as problem:
        _log.exception("trial %d failed", assignment.number)
        reason, error = EndReason.ERROR, f"{type(problem).__name__}: {problem}"
    shutil.rmtree(Path(assignment.directory) / RUNNING_FOLDER, ignore_errors=True)
    return _outcome(assignment, reason, error, seen)


def keep_start(assignment: TrialAssignment) -> None:
    """Leaves the trial's model before its first step, with its solved head, in the trial's ``best`` folder."""
    trial = FineTuning(assignment)
    try:
        trial.begin()
    finally:
        trial.close()


def train_to(assignment: TrialAssignment, epoch: int) -> str:
    """Trains a trial up to an epoch, 0 for its model before the first step; its best model is in its ``best`` folder.

    Returns:
        The error that ended it; empty where there was none.
    """
    if epoch == 0:
        keep_start(assignment)
        return ""
    outcome = run_trial(assignment, _StopAt(epoch))
    if outcome.error:
        return outcome.error
    return "" if (Path(assignment.directory) / BEST_FOLDER).is_dir() else f"it ended without a model: {outcome.reason}"


class _StopAt:
    """A Reporter that ends a trial at an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def report(self, report: EpochReport) -> Decision:
        return Decision.STOP if report.epoch >= self._epoch else Decision.CONTINUE


def _run(trial: RunningTrial, num_reports: int, reporter: Reporter, seen: list[EpochReport]) -> EndReason:
    decision = Decision.CONTINUE
    try:
        for report in _reports(trial, num_reports):
            seen.append(report)
            decision = reporter.report(report)
            if decision is not Decision.CONTINUE:
                break
    finally:
        trial.close()
    if decision is Decision.STOP:
        return EndReason.STOPPED
    whole = seen[-1].last or seen[-1].epoch == num_reports
    return EndReason.COMPLETED if whole else EndReason.PLATEAUED


def _reports(trial: RunningTrial, num_reports: int) -> Iterator[EpochReport]:
    yield from trial.reports
    while trial.epochs_done < num_reports and not (trial.reports and trial.reports[-1].last):
        yield trial.step()


def _outcome(assignment: TrialAssignment, reason: EndReason, error: str, seen: list[EpochReport]) -> TrialOutcome:
    best_value, best_epoch = best_seen(seen, assignment.setup.objective)
    return TrialOutcome(
        reason=reason,
        epochs_run=seen[-1].epoch if seen else 0,
        best_value=best_value,
        best_epoch=best_epoch,
        error=error,
    )


@dataclass(frozen=True, kw_only=True)
class FirstBatch:
    """What one batch showed; ``train_loss`` is measured before the step, ``val_loss`` after it."""

    num_images: int
    train_loss: float
    val_loss: float


def first_batch(assignment: TrialAssignment) -> FirstBatch:
    """Takes the first batch of a trial through forward, backward, optimiser step and evaluation.

    Nothing is written but a few images and features in the cache folder of the assignment: no folder of a trial, not
    even a file that says how far the packing is.

    Raises:
        UserError: Data, weights or settings break a rule.
        Diverged: The loss is not finite.
        Infeasible: The batch does not fit the device.
    """
    # two at least: batch norm cannot adapt to a single image
    index = _head(held_index(assignment.setup.data), max(2, assignment.config.batch_size))
    # The deepest a trial goes: progressive ones would show their first phase, the head alone.
    config = replace(assignment.config, unfreeze_schedule="at_once")
    opened = open_trial(replace(assignment, config=config), index=index)
    figures = opened.trainer.train_epoch(opened.train, seed=assignment.seed, epoch=1)
    evaluation = evaluate(opened.trainer.model, opened.val, opened.runtime, depth=opened.trainer.depth)
    return FirstBatch(num_images=len(opened.train), train_loss=figures.loss, val_loss=evaluation.metrics["val_loss"])


def frozen_features(backbone: str, setup: TrialSetup, *, image_size: int | None = None) -> Mapping[str, Tensor]:
    """What the head of a pretrained backbone sees of train and val: float32 (N, F) on the CPU, in the index's order.

    Read from the node's cache, which holds them wherever a trial's head was solved; else computed and stored there.

    Args:
        image_size: Of the trials, in pixels; None where it is not searched.

    Raises:
        UserError: Data, weights or settings break a rule.
        Infeasible: The model does not fit the device.
    """
    config = TrialConfig(backbone=backbone, image_size=image_size, head_init="random", augmentation="none")
    opened = open_trial(TrialAssignment(number=0, seed=0, config=config, setup=setup, directory=""))
    model, runtime, found = opened.trainer.model, opened.runtime, dict[str, Tensor]()
    model.eval()
    try:
        for split, source in (("train", opened.train), ("val", opened.val)):
            inputs = partial(forward_features, model, depth=0, from_pixels=source.kind == "pixels")
            rows = torch.cat([part.float().cpu() for part in in_batches(source, runtime, inputs)])
            found[split] = rows.flatten(1)
    finally:
        release_memory(runtime)
    return found


def _head(index: ImageIndex, num_images: int) -> ImageIndex:
    """The same data set with this number of images of train and val, spread over the classes; no test images."""
    splits = {name: _spread(index.splits[name], num_images) for name in ("train", "val")}
    digest = hashlib.sha256(f"{index.digest} first {num_images}".encode()).hexdigest()
    return replace(index, splits=splits, digest=digest)


def _spread(split: Split, num_images: int) -> Split:
    step = max(1, len(split) // num_images)
    taken = slice(0, step * num_images, step)
    return Split(keys=split.keys[taken], labels=split.labels[taken], digests=split.digests[taken])


def load_trained(directory: Path, found: ModelFile | None = None) -> tuple[StagedModel, ModelMeta]:
    """Loads the model of a checkpoint, in eval mode on the CPU, with what it says of itself.

    Neither the pretrained weights nor the training data are needed.

    Args:
        directory: Holds checkpoint.json, e.g. a trial's ``best`` folder.
        found: What checkpoint.json would say, of a folder with the tensors of several models.

    Raises:
        StorageError: No checkpoint there, one that is damaged, or one that does not fit its backbone.
    """
    directory = Path(directory)
    found = found or read_model_file(directory)
    meta, path = found.meta, directory / META_FILE
    facts = backbone_facts(meta.backbone)
    if facts is not None and not facts.valid_size(meta.image_size):
        raise StorageError(f"{meta.backbone} takes images of {facts.size_rule()}, not {meta.image_size} px: {path}")
    try:
        # First without memory: a file may name any backbone and any number of classes.
        empty = meta_model(
            meta.backbone, num_classes=len(meta.classes), image_size=meta.image_size, features=meta.config.features
        )
        state = read_model_state(directory, found, empty)
        model = build_model(
            meta.backbone,
            num_classes=len(meta.classes),
            weights=None,
            image_size=meta.image_size,
            seed=0,
            features=meta.config.features,
        )
    except StorageError:
        raise
    except UserError as error:
        raise StorageError(f"the backbone of a checkpoint must be one that can be built: {path}: {error}") from error
    model.load_state_dict(state)
    return model.eval(), meta
