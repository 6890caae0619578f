"""The temperature and thresholds of a model that has seen the validation images, by what its folds have held out.

A model of a search with folds is trained on all images of train and val, so that none of them can calibrate it. Each of
its trials has kept what it says of every one of them, from the training that has not seen it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.production.choice import Choice
from tlsearch.core.label_tasks import task_of
from tlsearch.data import ImageIndex
from tlsearch.results.combine.combination import combined_model
from tlsearch.results.combine.kept_logits import KeptTrial, kept_digest, read_trial
from tlsearch.results.stats.calibration import fit_temperature
from tlsearch.train import LOSSES, read_ensemble_meta

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a model's scores need to become probabilities and answers.

    Attributes:
        temperature: What they are divided by.
        thresholds: Of each class of a multi-label task; see ``ModelMeta``.
    """

    temperature: float
    thresholds: tuple[float, ...] = ()


def held_out_calibration(choice: Choice, index: ImageIndex) -> Calibration | None:
    """The calibration of a trial with folds, or of an ensemble of such, that is trained on all images.

    Returns:
        None of a trial without folds, of a soup, and where the trials have not kept what they said of these images.
    """
    if not choice.trial.folds:
        return None
    if choice.combination is None:
        kept = _of_trials(choice.entry, index, [choice.trial.number])
        if kept is None:
            return None
        logits, labels = kept[0].logits.astype(np.float64), kept[0].labels
        return Calibration(
            temperature=fit_temperature(logits, labels), thresholds=task_of(labels).thresholds(logits, labels)
        )
    return _of_ensemble(choice.entry, index) if choice.combination.kind == "ensemble" else None


def _of_ensemble(entry: SearchEntry, index: ImageIndex) -> Calibration | None:
    meta = read_ensemble_meta(combined_model(entry.path, "ensemble"))
    kept = _of_trials(entry, index, [member.trial for member in meta.members])
    if kept is None:
        return None
    total = sum(member.count for member in meta.members)
    pairs = zip(kept, meta.members, strict=True)
    scaled = [one.logits.astype(np.float64) / member.temperature for one, member in pairs]
    stacked = torch.from_numpy(np.stack(scaled, axis=1))
    weights = torch.tensor([[math.log(member.count / total)] for member in meta.members], dtype=torch.float64)
    labels: NDArray[Any] = kept[0].labels
    scores: Floats = LOSSES[index.task].average(stacked, weights).numpy()
    return Calibration(temperature=fit_temperature(scores, labels), thresholds=meta.thresholds)


def _of_trials(entry: SearchEntry, index: ImageIndex, numbers: list[int]) -> list[KeptTrial] | None:
    """What each of the trials has kept of the same images; None where one has not."""
    record = read_record(entry)
    digest = kept_digest(record, index)
    found = [one for number in numbers if (one := read_trial(entry.path, record.trial(number))) is not None]
    fewest = min((one.num_folds for one in found), default=0)
    alike = [one.of_folds(fewest) for one in found if one.digest == digest]
    whole = [one for one in alike if one is not None]
    return whole if len(whole) == len(numbers) else None
