"""A real fine-tuning, epoch by epoch: the RunningTrial of every search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tlsearch.data import with_image_size
from tlsearch.errors import DataError
from tlsearch.model import build_model, resolve_weights
from tlsearch.train import (
    TOP5_MIN_CLASSES,
    FrozenPart,
    ModelMeta,
    Trainer,
    build_optimizer,
    evaluate,
    open_runtime,
    release_memory,
    save_model_checkpoint,
    write_frozen_part,
)
from tlsearch.trial.frozen import guard_frozen
from tlsearch.trial.held import held_index
from tlsearch.trial.running import Progress, epochs_of, restore_running, save_running
from tlsearch.trial.sources import SourceInputs, open_source
from tlsearch.types import EpochReport, TrialAssignment, WeightsSource

RUNNING_INTERVAL_S = 15.0  # at most one running checkpoint in so many seconds: shorter trials write none
RUNNING_FOLDER, BEST_FOLDER = "running", "best"


class FineTuning:
    """One trial: opened from an assignment, stepped epoch by epoch, closed.

    Opening goes on from ``<directory>/running`` where that holds a checkpoint of this trial. The best epoch's
    model is kept in ``<directory>/best``.

    Raises:
        UserError: Data, weights or settings break a rule.
    """

    def __init__(self, assignment: TrialAssignment) -> None:
        config, setup = assignment.config, assignment.setup
        assert config.bn_policy in (None, "frozen", "train", "stats"), f"no trial can take bn_policy {config.bn_policy}"
        self._assignment = assignment
        self._directory = Path(assignment.directory)
        self._runtime = open_runtime(setup.device, setup.precision, setup.num_threads)
        self._index = held_index(setup.data)
        _check_metric(setup.metric, len(self._index.classes))
        self._weights = resolve_weights(config.backbone, setup.weights.get(config.backbone, WeightsSource()))
        self._transform = with_image_size(self._weights.transform, setup.data.image_size)
        self._model = build_model(
            config.backbone,
            num_classes=len(self._index.classes),
            weights=self._weights,
            image_size=self._transform.crop_size,
            seed=assignment.seed,
        )
        self._model.freeze(config.unfreeze_depth, config.bn_policy)
        self._model.to(device=self._runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._guard = guard_frozen(self._model)
        inputs = SourceInputs(
            config=config,
            setup=setup,
            index=self._index,
            transform=self._transform,
            weights_digest=self._weights.digest,
            runtime=self._runtime,
            guard=self._guard,
        )
        self._train = open_source(self._model, inputs, "train")
        self._val = open_source(self._model, inputs, "val")
        self._trainer = Trainer(
            self._model,
            build_optimizer(self._model, config),
            self._runtime,
            depth=config.unfreeze_depth,
            batch_size=config.batch_size,
        )
        self._progress = self._restore()
        self._frozen_part: FrozenPart | None = None
        self._unchecked = False  # whether a step was taken since the frozen tensors were last compared
        self._last_saved = time.monotonic()

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
        """The best epoch so far; of equal ones the first."""
        return self._progress.best_epoch

    def step(self) -> EpochReport:
        """Trains and evaluates the next epoch and writes the checkpoints that are due.

        Raises:
            Diverged: A loss is not finite.
            Infeasible: Out of memory with nothing left to halve.
            FrozenMoved: After the last epoch: a frozen tensor has changed.
        """
        setup = self._assignment.setup
        epoch = self.epochs_done + 1
        assert epoch <= setup.max_epochs, f"a trial of {setup.max_epochs} epochs has no epoch {epoch}"
        self._unchecked = True
        report = self._run_epoch(epoch)
        if epoch == setup.max_epochs:
            self._check_frozen()
        value = report.metrics[setup.metric]
        best_value, best_epoch = self._progress.best_value, self._progress.best_epoch
        improved = best_value is None or (value > best_value if setup.mode == "max" else value < best_value)
        if improved:
            best_value, best_epoch = value, epoch
            self._save_best(report)
        self._progress = Progress(
            reports=(*self._progress.reports, report), best_value=best_value, best_epoch=best_epoch
        )
        if time.monotonic() - self._last_saved >= RUNNING_INTERVAL_S:
            self._save_running()
        return report

    def close(self) -> None:
        """Checks that the frozen tensors stood still, and gives the device's memory back.

        Raises:
            FrozenMoved: A frozen tensor has changed.
        """
        if not hasattr(self, "_model"):
            return
        try:
            if self._unchecked:
                self._check_frozen()
        finally:
            del self._model, self._trainer, self._train, self._val
            release_memory(self._runtime)

    def _run_epoch(self, epoch: int) -> EpochReport:
        start = time.perf_counter()
        figures = self._trainer.train_epoch(self._train, seed=self._assignment.seed, epoch=epoch)
        train_s = time.perf_counter() - start
        metrics = evaluate(self._model, self._val, self._runtime, depth=self._trainer.depth)
        metrics["train_loss"] = figures.loss
        metrics["train_accuracy"] = figures.accuracy
        metrics["epoch_seconds"] = time.perf_counter() - start
        metrics["images_per_second"] = len(self._train) / train_s
        return EpochReport(
            epoch=epoch,
            metrics=metrics,
            timestamp=time.time(),
            source=self._train.kind,
            source_reason=self._train.reason,
        )

    def _check_frozen(self) -> None:
        self._unchecked = False
        self._guard.check(self._model)

    def _save_best(self, report: EpochReport) -> None:
        setup = self._assignment.setup
        directory = self._directory / BEST_FOLDER
        if self._frozen_part is None and self._guard.digests:
            self._frozen_part = write_frozen_part(directory, self._model.frozen_state())
        meta = ModelMeta(
            backbone=self._assignment.config.backbone,
            classes=self._index.classes,
            weights_id=self._weights.id,
            weights_digest=self._weights.digest,
            transform=self._transform,
            image_size=self._transform.crop_size,
            config=self._assignment.config,
            epoch=report.epoch,
            metric=setup.metric,
            value=report.metrics[setup.metric],
            metrics=report.metrics,
        )
        save_model_checkpoint(directory, model=self._model, meta=meta, frozen=self._frozen_part)

    def _save_running(self) -> None:
        save_running(
            self._directory / RUNNING_FOLDER,
            assignment=self._assignment,
            trainer=self._trainer,
            frozen_digest=self._guard.digest,
            progress=self._progress,
        )
        self._last_saved = time.monotonic()

    def _restore(self) -> Progress:
        restored = restore_running(
            self._directory / RUNNING_FOLDER,
            assignment=self._assignment,
            trainer=self._trainer,
            frozen_digest=self._guard.digest,
        )
        return restored or Progress()


def _check_metric(metric: str, num_classes: int) -> None:
    if metric == "val_top5_accuracy" and num_classes < TOP5_MIN_CLASSES:
        raise DataError(f"search.metric {metric} needs {TOP5_MIN_CLASSES} classes or more; the data have {num_classes}")
