"""A trial with folds: one whole training for each fold of the images, and the mean of what they reach.

Its K reports are its "epochs" for the search: report k is of the first k folds, so that rungs, resume and budgets work
as they do for epochs. All folds are read at one common epoch, the one whose mean is best: a fold that chose its own
best epoch would flatter itself, and that epoch is what a model is then trained for on all images.

Each image of train and val is held out by one fold, whose training has not seen it. Which epoch is the common one may
change with each fold, so the logits of all epochs are held until the trial ends. The trial's file has those of the
common epoch, and of the images that the folds done so far hold out.
"""

from __future__ import annotations

import logging
import math
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.core.codec import from_plain, to_plain
from tlsearch.core.errors import StorageError
from tlsearch.core.metrics import METRICS
from tlsearch.core.types import FOLD_EPOCH, EpochReport, Objective, RunningTrial, TrialAssignment
from tlsearch.data import split_digest
from tlsearch.train import (
    TensorFile,
    read_tensors,
    remove_others,
    save_val_logits,
    write_json,
    write_tensors,
)
from tlsearch.trial.context import Doing
from tlsearch.trial.finetuning import RUNNING_FOLDER, RUNNING_INTERVAL_S, FineTuning
from tlsearch.trial.process_cache import held_folds
from tlsearch.trial.resume_point import identity_of, read_own

_log = logging.getLogger(__name__)
_FORMAT = 1
_FILE = "folds.json"

FoldLogits = Mapping[int, Tensor]  # of one fold by epoch, 0 before the first step: float16 (M, C)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The folds that are done.

    Attributes:
        reports: One for each.
        curves: Of each fold the metrics of validation by epoch, 0 before the first step, where the head is solved.
    """

    reports: tuple[EpochReport, ...] = ()
    curves: tuple[Mapping[int, Mapping[str, float]], ...] = ()


class FoldTraining:
    """A trial that is trained once for each fold; its checkpoint is the folds done and that of the current one.

    No model is kept: ``promote`` trains one on all images. The logits of the images that its folds hold out are.

    Raises:
        UserError: Data, weights or settings break a rule.
    """

    def __init__(self, assignment: TrialAssignment) -> None:
        self._assignment = assignment
        self._folder = Path(assignment.directory) / RUNNING_FOLDER
        self._done, self._held_out = _read(self._folder, assignment)
        self._training: FineTuning | None = None
        self._last_saved, self._saved_fold = time.monotonic(), self.epochs_done

    @property
    def epochs_done(self) -> int:
        """Folds done."""
        return len(self._done.reports)

    @property
    def reports(self) -> Sequence[EpochReport]:
        """One for each fold done."""
        return self._done.reports

    def step(self) -> EpochReport:
        """Trains and evaluates the next fold from its first epoch to its last, or from where it was interrupted.

        Raises:
            Diverged: A loss is not finite, or the pretrained features are distorted.
            Infeasible: Out of memory with nothing left to halve.
            FrozenMoved: A frozen tensor has changed.
        """
        setup, began = self._assignment.setup, time.perf_counter()
        fold = self.epochs_done + 1
        assert fold <= setup.folds, f"a trial of {setup.folds} folds has no fold {fold}"
        folder = self._folder / f"fold-{fold}"
        one = replace(self._assignment, setup=replace(setup, fold=fold), directory=str(folder))
        training = self._training = FineTuning(one, doing=Doing(Path(self._assignment.directory)))
        while training.epochs_done < setup.max_epochs and not (training.reports and training.reports[-1].last):
            training.step()
        trained = training.reports
        self.close()
        curves = (*self._done.curves, _curve(trained))
        metrics = {**trained[-1].metrics, **mean_of(curves, setup.objective)}
        metrics["epoch_seconds"] = time.perf_counter() - began
        report = replace(
            trained[-1], epoch=fold, metrics=metrics, timestamp=time.time(), start=None, folds=setup.folds, last=False
        )
        self._held_out = (*self._held_out, training.held_out)
        _keep_held_out(self._assignment, self._held_out, int(metrics[FOLD_EPOCH]))
        self._done = Finished(reports=(*self._done.reports, report), curves=curves)
        if time.monotonic() - self._last_saved >= RUNNING_INTERVAL_S:
            self.save()
        return report

    def save(self) -> None:
        """Writes down the folds done, unless they are written."""
        if self.epochs_done > self._saved_fold:
            file = write_tensors(self._folder, f"held-out-{self.epochs_done}", _named(self._held_out))
            own = {"done": to_plain(self._done), "tensors_file": file.name, "tensors_sha256": file.sha256}
            write_json(self._folder / _FILE, {**_identity(self._assignment), **own})
            remove_others(self._folder, [file.name])
            shutil.rmtree(self._folder / f"fold-{self.epochs_done}", ignore_errors=True)
            self._last_saved, self._saved_fold = time.monotonic(), self.epochs_done

    def close(self) -> None:
        """Ends the training of a fold, where one is open; again is harmless."""
        training, self._training = self._training, None
        if training is not None:
            training.close()


def open_running(assignment: TrialAssignment) -> RunningTrial:
    """Opens a trial: of epochs, or of folds where its setup has some."""
    return FoldTraining(assignment) if assignment.setup.folds else FineTuning(assignment)


def mean_of(curves: Sequence[Mapping[int, Mapping[str, float]]], objective: Objective) -> dict[str, float]:
    """What folds reach on average at their best common epoch; of equal ones the first.

    Args:
        curves: Of each fold the metrics of validation by epoch.

    Returns:
        The mean of each metric; ``fold_epoch``, the epoch, and ``fold_<metric>``, the last fold's own value at it; and
        from two folds on ``<metric>_se``: the standard deviation over folds by sqrt(K). Folds share training images, so
        the true error of the mean is larger (Bengio and Grandvalet, 2004).
    """
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = {epoch: statistics.fmean(curve[epoch][objective.metric] for curve in curves) for epoch in common}
    epoch = objective.best(common, values.get)
    assert epoch is not None, "a training has an epoch"
    names = curves[0][epoch]
    metrics = {name: statistics.fmean(curve[epoch][name] for curve in curves) for name in names}
    own = [curve[epoch][objective.metric] for curve in curves]
    metrics |= {FOLD_EPOCH: float(epoch), f"fold_{objective.metric}": own[-1]}
    if len(own) > 1:
        metrics[f"{objective.metric}_se"] = statistics.stdev(own) / math.sqrt(len(own))
    return metrics


def _curve(reports: Sequence[EpochReport]) -> dict[int, dict[str, float]]:
    found = {report.epoch: report.metrics for report in reports}
    if reports[0].start is not None:
        found[0] = reports[0].start.metrics
    return {epoch: {name: metrics[name] for name in METRICS if name in metrics} for epoch, metrics in found.items()}


def _read(folder: Path, assignment: TrialAssignment) -> tuple[Finished, tuple[FoldLogits, ...]]:
    """The folds that a checkpoint holds, with their logits; none without one that is sound and of this very trial."""
    if not (folder / _FILE).is_file():
        return Finished(), ()
    try:
        content = read_own(folder / _FILE, "the finished folds", _identity(assignment))
        done = from_plain(Finished, content["done"])
        tensors = {}
        if "tensors_file" in content:  # an earlier version wrote none
            tensors = read_tensors(folder, TensorFile(name=content["tensors_file"], sha256=content["tensors_sha256"]))
        return done, _unnamed(tensors, len(done.reports))
    except (StorageError, KeyError, IndexError, TypeError, ValueError) as error:
        _log.warning("trial %d starts again; its finished folds cannot be used: %s", assignment.number, error)
        return Finished(), ()


def _identity(assignment: TrialAssignment) -> dict[str, object]:
    return {"format": _FORMAT, **identity_of(assignment), "folds": assignment.setup.folds}


def _keep_held_out(assignment: TrialAssignment, folds: Sequence[FoldLogits], epoch: int) -> None:
    """Replaces the trial's file by the logits of all images that its first folds hold out.

    Nothing is written where those of a fold are not known: they were too many, or an earlier version began it.

    Args:
        assignment: Of the trial as a whole.
        folds: Of each fold done.
        epoch: The common one.
    """
    if not all(epoch in fold for fold in folds):
        return
    setup = assignment.setup
    kept = [one.kept("val") for one in held_folds(setup.data, setup.folds, digest=setup.data_digest)[: len(folds)]]
    rows = torch.cat([torch.tensor(one.rows) for one in kept])
    numbers = torch.cat([torch.full((len(fold[epoch]),), number) for number, fold in enumerate(folds, start=1)])
    order = rows.argsort()
    pool = kept[0].index
    save_val_logits(
        Path(assignment.directory),
        torch.cat([fold[epoch] for fold in folds])[order],
        torch.from_numpy(pool.label_array("train"))[rows[order]],
        epoch=len(folds),
        digest=split_digest(pool.splits["train"]),
        folds=numbers[order],
    )


def _named(folds: Sequence[FoldLogits]) -> dict[str, Tensor]:
    """All of them under names that ``_unnamed`` reads."""
    return {f"{n}/{epoch}": logits for n, fold in enumerate(folds, start=1) for epoch, logits in fold.items()}


def _unnamed(tensors: Mapping[str, Tensor], num_folds: int) -> tuple[FoldLogits, ...]:
    """The logits of each of the first folds.

    Raises:
        ValueError: A name is not of ``_named``.
    """
    folds: list[dict[int, Tensor]] = [{} for _ in range(num_folds)]
    for name, logits in tensors.items():
        fold, epoch = map(int, name.split("/"))
        folds[fold - 1][epoch] = logits
    return tuple(folds)
