"""One trial without a search engine: all of it, its first batch alone, or the model that it trained."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.config.checkpoint_meta import META_FILE, ModelFile, ModelMeta, read_model_file
from tlsearch.core.errors import Diverged, Infeasible, StorageError, UserError
from tlsearch.core.types import (
    Decision,
    EndReason,
    EpochReport,
    ModelSpec,
    Reporter,
    RunningTrial,
    TrialAssignment,
    TrialOutcome,
    best_seen,
)
from tlsearch.model import StagedModel, meta_model, untrained_model
from tlsearch.space.libraries.backbones import backbone_facts
from tlsearch.train import evaluate, read_model_state
from tlsearch.trial.finetuning import BEST_FOLDER, RUNNING_FOLDER, FineTuning
from tlsearch.trial.fold_training import open_running
from tlsearch.trial.inputs import open_source
from tlsearch.trial.probe_pass import sample_of
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
    best_value, best_epoch = best_seen(seen, assignment.setup.objective)
    return TrialOutcome(
        reason=reason,
        epochs_run=seen[-1].epoch if seen else 0,
        best_value=best_value,
        best_epoch=best_epoch,
        error=error,
    )


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


@dataclass(frozen=True, kw_only=True)
class FirstBatch:
    """What one batch showed: ``train_loss`` before the step, ``val_loss`` after it.

    Of a solved head both are of the head that the batch gives.
    """

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
    num_images = max(2, assignment.config.batch_size)
    index = sample_of(held_index(assignment.setup.data), {"train": num_images, "val": num_images})
    # The deepest a trial goes: progressive ones would show their first phase, the head alone.
    config = replace(assignment.config, unfreeze_schedule="at_once")
    opened = open_trial(replace(assignment, config=config), index=index)
    if opened.training is None:
        train = open_source(opened.model, opened.context, opened.phase, "train")
        losses = [
            evaluate(opened.model, one, opened.runtime, depth=0).metrics["val_loss"] for one in (train, opened.val)
        ]
        return FirstBatch(num_images=len(train), train_loss=losses[0], val_loss=losses[1])
    figures = opened.trainer.train_epoch(opened.train, seed=assignment.seed, epoch=1)
    evaluation = evaluate(opened.model, opened.val, opened.runtime, depth=opened.trainer.depth)
    return FirstBatch(num_images=len(opened.train), train_loss=figures.loss, val_loss=evaluation.metrics["val_loss"])


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
    spec = ModelSpec(
        backbone=meta.backbone,
        num_classes=len(meta.classes),
        image_size=meta.image_size,
        channels=meta.transform.channels,
        features=meta.config.features,
    )
    try:
        # First without memory: a file may name any backbone and any number of classes.
        state = read_model_state(directory, found, meta_model(spec))
        model = untrained_model(spec)
    except StorageError:
        raise
    except UserError as error:
        raise StorageError(f"the backbone of a checkpoint must be one that can be built: {path}: {error}") from error
    model.load_state_dict(state)
    return model.eval(), meta
