"""What a search's best model says of the images that chose it, for the report: the kept one, or those of its folds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.core.errors import UserError
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.types import SearchRecord, TrialRecord
from tlsearch.data import ImageIndex, with_val_in_train
from tlsearch.results.combine.kept_logits import kept_digest, read_trial
from tlsearch.results.inference.labelled import thumbnails
from tlsearch.results.inference.multi_labelled import evaluate_split, evaluation_of
from tlsearch.results.inference.predictor import load_model
from tlsearch.results.report.model_section import BestModel

_NUM_PICTURES = 12


def best_model(entry: SearchEntry, record: SearchRecord, index: ImageIndex) -> tuple[BestModel | None, str]:
    """The best trial's model over the validation images; else None and the reason.

    Of a trial with folds no model is kept: it is what each fold's model says of the images that it has not seen.

    Args:
        record: Of the search, which has a best trial.
        index: Its data, unchanged since.
    """
    best = record.best
    assert best is not None, "a search with a result has a best trial"
    if missing := not_kept(entry, best):
        return None, missing
    try:
        model = _of_folds(entry, record, best, index) if best.folds else _kept(entry, best, index)
        if model is None:
            return None, f"Trial {best.number} has not kept what each of its folds says of these images."
        pictures = thumbnails(index, [one.key for one in model.evaluation.worst(_NUM_PICTURES)])
        return replace(model, pictures=pictures), ""
    except UserError as error:
        return None, f"The model of trial {best.number} cannot be evaluated: {error}"


def not_kept(entry: SearchEntry, best: TrialRecord) -> str:
    """Why there is nothing to evaluate; empty where there is."""
    folder = entry.folder.best(best.number)
    if best.folds or folder.is_dir():
        return ""
    return (
        f"The model of trial {best.number} is not in {folder}: a search keeps those of its `tracking.keep_best` best "
        "trials."
    )


def _kept(entry: SearchEntry, best: TrialRecord, index: ImageIndex) -> BestModel:
    model = load_model(entry.folder.best(best.number))
    return BestModel(trial=best.number, evaluation=evaluate_split(model, index, "val"))


def _of_folds(entry: SearchEntry, record: SearchRecord, best: TrialRecord, index: ImageIndex) -> BestModel | None:
    """None where the trial has not seen all folds, or has kept nothing of these images."""
    kept = read_trial(entry.path, best)
    if kept is None or kept.num_folds < best.folds or kept.digest != kept_digest(record, index):
        return None
    logits, task = kept.logits.astype(np.float64), TASKS[index.task]
    evaluation = evaluation_of(
        task,
        logits,
        kept.labels,
        classes=index.classes,
        keys=with_val_in_train(index).splits["train"].keys,
        thresholds=task.thresholds(logits, kept.labels),
    )
    return BestModel(trial=best.number, evaluation=evaluation, folds=best.folds)
