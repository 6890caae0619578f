"""A real fine-tuning, epoch by epoch: the RunningTrial of every search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from tlsearch.core.crash import crash_point
from tlsearch.core.layout import frozen_folder
from tlsearch.core.types import EpochReport, StartReport, TrialAssignment
from tlsearch.data import split_digest
from tlsearch.model import StagedModel
from tlsearch.train import (
    Evaluation,
    FrozenPart,
    Writer,
    copy_to_host,
    depth_at,
    evaluate,
    learning_rates,
    release_memory,
    save_confusion,
    save_model_checkpoint,
    save_val_logits,
    share_frozen_part,
    write_frozen_part,
)
from tlsearch.trial.context import Doing, keeps_logits
from tlsearch.trial.feature_collapse import watch_features
from tlsearch.trial.measurements import Usage
from tlsearch.trial.resume_point import Progress, epochs_of, load_running, read_running, save_running
from tlsearch.trial.setup import OpenTrial, Training, leave_model, next_epoch, next_phase, open_trial

RUNNING_INTERVAL_S = 15.0  # at most one running checkpoint in this number of seconds: shorter trials write none
_CHEAP_S = 0.75  # what takes longer to write is written more rarely, so that it costs at most a twentieth of the time
RUNNING_FOLDER, BEST_FOLDER = "running", "best"


class FineTuning:
    """One trial: opened from an assignment, stepped epoch by epoch, closed.

    Opening goes on from ``<directory>/running`` where that holds a checkpoint of this trial. The best epoch's
    model is kept in ``<directory>/best``; until an epoch is better that is the solved head before the first step.
    Of the training of a fold no model is kept, but what it says of the images held out.

    Args:
        doing: Hears of work that takes long; by default it is written into the directory.

    Raises:
        UserError: Data, weights or settings break a rule.
    """

    def __init__(self, assignment: TrialAssignment, *, doing: Doing | None = None) -> None:
        self._opened_at = time.perf_counter()
        self._assignment = assignment
        self._directory = Path(assignment.directory)
        solved, folder = assignment.config.solved, self._directory / RUNNING_FOLDER
        running = None if solved else read_running(folder, assignment)  # a solved head is solved again
        doing = doing or Doing(self._directory)
        opened = open_trial(assignment, epochs_done=running.epochs_done if running else 0, doing=doing)
        training = opened.training
        if running and training and not load_running(running, training.trainer, frozen_digest=training.identity):
            running, opened = None, open_trial(assignment, doing=doing)
        self._opened: OpenTrial | None = opened
        self._progress = running.progress if running else Progress()
        self._frozen_part: FrozenPart | None = None
        self._writer = Writer()
        self._usage = Usage(opened.runtime.device)
        self._start: StartReport | None = None  # of this process: a resumed trial has it in its first report
        self._holds_logits = keeps_logits(opened.context) and assignment.setup.fold > 0
        self._unchecked = False  # whether a step was taken since the frozen tensors were last compared
        self._last_saved, self._interval_s = time.monotonic(), RUNNING_INTERVAL_S
        self._saved_epoch = self.epochs_done

    @property
    def model(self) -> StagedModel:
        """The model as it is now; only before ``close``."""
        return self._parts.model

    @property
    def _parts(self) -> OpenTrial:
        assert self._opened is not None, "the trial is closed"
        return self._opened

    @property
    def epochs_done(self) -> int:
        """The last epoch done; 0 before the first."""
        return epochs_of(self._progress.reports)

    @property
    def reports(self) -> Sequence[EpochReport]:
        """The reports of all epochs done, those before a resume included."""
        return self._progress.reports

    @property
    def best_value(self) -> float | None:
        """The metric at the best epoch so far."""
        return self._progress.best_value

    @property
    def best_epoch(self) -> int | None:
        """The best epoch so far, 0 before the first step; of equal ones the first."""
        return self._progress.best_epoch

    @property
    def held_out(self) -> Mapping[int, Tensor]:
        """Of the training of a fold the logits of its validation images by epoch, as they are kept; else empty."""
        return self._progress.held_out

    def begin(self) -> None:
        """Keeps the model as it is before the first step, where its head is solved; ``step`` does so, too.

        It is on disk when the first report is, or the trial is closed.
        """
        start = self._parts.start
        if start is None or self.epochs_done > 0 or self._start is not None:
            return
        self._start = StartReport(metrics=start.metrics, timestamp=time.time())
        value, held_out = start.metrics[self._assignment.setup.metric], self._held_out(0, start)
        self._progress = Progress(best_value=value, best_epoch=0, held_out=held_out)
        self._save_best(0, start.metrics, start)

    def step(self) -> EpochReport:
        """Trains and evaluates the next epoch and writes the checkpoints that are due.

        Raises:
            Diverged: A loss is not finite, or the pretrained features are distorted.
            Infeasible: Out of memory with nothing left to halve.
            FrozenMoved: After the last epoch: a frozen tensor has changed.
        """
        setup = self._assignment.setup
        self.begin()
        epoch = self.epochs_done + 1
        assert epoch <= setup.max_epochs, f"a trial of {setup.max_epochs} epochs has no epoch {epoch}"
        if self._assignment.config.solved:
            return self._report_solved()
        report, evaluation = self._run_epoch(epoch)
        self._unchecked = True
        if epoch == setup.max_epochs:
            self._check_frozen()
        value = report.metrics[setup.metric]
        best_value, best_epoch = self._progress.best_value, self._progress.best_epoch
        improved = best_value is None or setup.objective.better(value, best_value)
        if improved or setup.refit:
            best_value, best_epoch = value, epoch
            self._save_best(epoch, report.metrics, evaluation)
        reports, held_out = (*self._progress.reports, report), self._held_out(epoch, evaluation)
        self._progress = Progress(reports=reports, best_value=best_value, best_epoch=best_epoch, held_out=held_out)
        if time.monotonic() - self._last_saved >= self._interval_s:
            self.save()
        self._writer.join()  # a report is sent when the checkpoints that are due are on disk
        return report

    def save(self) -> None:
        """Writes the running checkpoint of the last epoch done, unless it is there or nothing trains."""
        training = self._parts.training
        if training is not None and self.epochs_done > self._saved_epoch:
            self._save_running(training)

    def close(self) -> None:
        """Checks that the frozen tensors stood still, and gives the device's memory back; again is harmless.

        Raises:
            FrozenMoved: A frozen tensor has changed.
        """
        if self._opened is None:
            return
        runtime = self._opened.runtime
        try:
            self._writer.join()
            if self._unchecked:
                self._check_frozen()
            leave_model(self._opened)
        finally:
            self._opened = None
            release_memory(runtime)

    def _report_solved(self) -> EpochReport:
        """The one report of a trial whose head was solved: the model before a first step that no one takes."""
        parts, start = self._parts, self._parts.start
        assert start is not None, "a solved head was evaluated when the trial was opened"
        report = EpochReport(
            epoch=1,
            metrics={**start.metrics, "epoch_seconds": time.perf_counter() - self._opened_at, **self._usage.figures()},
            timestamp=time.time(),
            source=parts.val.kind,
            source_reason=parts.val.reason,
            start=self._start,
            last=True,
        )
        self._progress = replace(self._progress, reports=(report,))
        self._writer.join()
        return report

    def _run_epoch(self, epoch: int) -> tuple[EpochReport, Evaluation]:
        start = time.perf_counter()
        depth_before = self._parts.trainer.depth
        self._enter_phase(epoch)
        self._parts.context.doing.over()
        parts = self._parts
        watch = watch_features(parts, depth_before, epoch)
        train_start = time.perf_counter()
        after_step = watch.after_step if watch is not None else None
        figures = parts.trainer.train_epoch(parts.train, seed=self._assignment.seed, epoch=epoch, after_step=after_step)
        train_s = time.perf_counter() - train_start
        with self._kept_weights():
            evaluation = evaluate(parts.model, parts.val, parts.runtime, depth=parts.trainer.depth)
        metrics = dict(evaluation.metrics)
        if watch is not None:
            metrics["feature_drift"] = watch.after_epoch(figures, metrics)
        metrics["train_loss"] = figures.loss
        metrics["train_accuracy"] = figures.accuracy
        metrics["epoch_seconds"] = time.perf_counter() - start
        metrics["images_per_second"] = len(parts.train) / train_s
        metrics["trainable_stages"] = float(parts.trainer.depth)
        metrics |= {f"lr_{part}": rate for part, rate in learning_rates(parts.trainer.optimizer).items()}
        metrics |= self._usage.figures()
        report = EpochReport(
            epoch=epoch,
            metrics=metrics,
            timestamp=time.time(),
            source=parts.train.kind,
            source_reason=parts.train.reason,
            start=self._start if epoch == 1 else None,
        )
        return report, evaluation

    def _enter_phase(self, epoch: int) -> None:
        depth = depth_at(self._assignment.config, self._assignment.setup.max_epochs, epoch)
        if depth > self._parts.trainer.depth:
            self._opened = next_phase(self._parts, depth, epoch=epoch)
        else:
            self._opened = next_epoch(self._parts, epoch=epoch)

    def _check_frozen(self) -> None:
        self._unchecked = False
        self._parts.phase.guard.check(self.model)

    def _save_best(self, epoch: int, metrics: Mapping[str, float], evaluation: Evaluation) -> None:
        if self._assignment.setup.fold:
            return
        parts, context = self._parts, self._parts.context
        directory, classes = self._directory / BEST_FOLDER, context.index.classes
        meta = context.model_meta(epoch, metrics, evaluation.thresholds)
        with self._kept_weights():
            changing = copy_to_host(self.model.merged_state(parts.changing))
        keep_frozen = self._keep_frozen(parts)
        val = context.index.splits["val"]
        logits = None if context.setup.refit else evaluation.logits  # a refit has trained on these images

        def write() -> None:
            if self._frozen_part is None and parts.lasting:
                self._frozen_part = keep_frozen(parts.lasting)  # as it is, and once: it stands still to the end
            save_confusion(directory, epoch=epoch, classes=classes, matrix=evaluation.confusion)
            if logits is not None:
                save_val_logits(directory.parent, logits, parts.val.labels, epoch=epoch, digest=split_digest(val))
            save_model_checkpoint(directory, state=changing(), meta=meta, frozen=self._frozen_part)

        self._writer.submit(write)

    def _held_out(self, epoch: int, evaluation: Evaluation) -> Mapping[int, Tensor]:
        """Those of the epochs so far: which one counts is known when all folds are done."""
        found = {epoch: evaluation.logits} if self._holds_logits and evaluation.logits is not None else {}
        return {**self._progress.held_out, **found}

    def _keep_frozen(self, parts: OpenTrial) -> Callable[[Mapping[str, Tensor]], FrozenPart]:
        """How the tensors that stand still are written: once for the search, unless each trial draws its own."""
        directory = self._directory / BEST_FOLDER
        if not self._assignment.shares or parts.context.weights.state is None:
            return partial(write_frozen_part, directory)
        return partial(share_frozen_part, frozen_folder(directory), digests=parts.phase.guard.digests)

    def _kept_weights(self) -> AbstractContextManager[None]:
        """The model has the weights that are evaluated and kept: with ``ema`` the averaged ones."""
        training = self._parts.training
        average = None if training is None else training.trainer.average
        return nullcontext() if average is None else average.applied()

    def _save_running(self, training: Training) -> None:
        began = time.monotonic()
        save_running(
            self._directory / RUNNING_FOLDER,
            assignment=self._assignment,
            trainer=training.trainer,
            frozen_digest=training.identity,
            progress=self._progress,
        )
        crash_point("after_checkpoint")
        self._last_saved, self._saved_epoch = time.monotonic(), self.epochs_done
        self._interval_s = RUNNING_INTERVAL_S * max(1.0, (self._last_saved - began) / _CHEAP_S)
