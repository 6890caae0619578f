"""Finds labels of a search's train and val images that out-of-sample predictions contradict.

Validation images, with folds all images, are judged by the logits that good trials have kept, and both splits by linear
heads on cached features of the backbones of these trials, each image by a head that was fitted to all others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.config import SpaceFile
from tlsearch.core.errors import Infeasible, UserError
from tlsearch.core.label_tasks import TASKS, label_text
from tlsearch.core.text import plural
from tlsearch.core.types import SearchRecord, TrialAssignment, TrialConfig
from tlsearch.data import ImageIndex, rows_with_val_in_train
from tlsearch.results.combine.kept_logits import each_kept, kept_digest
from tlsearch.results.inference.labelled import thumbnails
from tlsearch.results.report.label_section import DoubtfulLabel, LabelErrors
from tlsearch.results.stats.calibration import fit_temperature, scaled_probabilities
from tlsearch.results.stats.confident_learning import contradictions, leave_one_out
from tlsearch.results.stats.intervals import compare_paired

logger = logging.getLogger(__name__)

_MAX_TRIALS = 20  # good trials that judge
_MAX_BACKBONES = 3
_MAX_IMAGES = 20_000  # of train and val for the linear heads
_NUM_PICTURES = 24
_NO_TRIALS = (
    "No trial has kept logits of these images: a search of an earlier version keeps none, and a trial with folds those "
    "of all images once it has seen all folds."
)
_WORSE_P = 0.05  # of McNemar's test against the best trial: below, a worse trial does not judge

Floats = NDArray[np.float64]


def find_label_errors(entry: SearchEntry, record: SearchRecord, file: SpaceFile, index: ImageIndex) -> LabelErrors:
    """Judges the labels of train and val; the test split stays closed.

    Args:
        record: Of the search; trials of an earlier version, which kept no logits, do not judge.
        file: The search's space file.
        index: Its data, unchanged since; those of a multi-label task are not judged.
    """
    if "label_errors" in TASKS[index.task].unsupported:
        return LabelErrors(images=(), judged={})
    by_trials, good = _good_trials(entry, record, index)
    configs = [trial.config for trial in record.ranked if not good or trial.number in good]
    backbones = list(dict.fromkeys(config.backbone for config in configs))
    sizes = {config.backbone: config.image_size for config in reversed(configs)}  # that of its best trial
    opinions = {split: [by_trials[split]] if split in by_trials else [] for split in ("train", "val")}
    notes = [] if good else [_NO_TRIALS]
    heads, why = _by_heads({name: sizes[name] for name in backbones[:_MAX_BACKBONES]}, file, index)
    notes += [why] if why else []
    for one in heads.values():
        for split, probabilities in one.items():
            opinions[split].append(probabilities)
    found = sorted(_doubtful(opinions, index), key=lambda one: (one.label_probability, one.split, one.key))
    pictures: list[str] = []
    try:
        pictures = thumbnails(index, [one.key for one in found[:_NUM_PICTURES]])
    except UserError as error:
        logger.warning("doubtful images cannot be shown: %s", error)
    return LabelErrors(
        images=tuple(found),
        judged={split: len(index.splits[split]) for split, theirs in opinions.items() if theirs},
        judges=_judges(len(good), list(heads)),
        pictures=pictures,
        notes=notes,
    )


def _good_trials(entry: SearchEntry, record: SearchRecord, index: ImageIndex) -> tuple[dict[str, Floats], list[int]]:
    """Mean of the good trials' probabilities by split, each trial at its own temperature, and who they are.

    Good are the best trial and those that are not convincingly worse on the same images. Trials with folds judge train
    and val, those without val alone.
    """
    total, good = _mean_of_good(entry, record, index)
    if not good:
        return {}, good
    if not any(trial.folds for trial in record.trials):
        return {"val": total}, good
    return {split: total[list(rows)] for split, rows in rows_with_val_in_train(index).items()}, good


def _mean_of_good(entry: SearchEntry, record: SearchRecord, index: ImageIndex) -> tuple[Floats, list[int]]:
    folds = max((trial.folds for trial in record.trials), default=0)  # who has seen fewer has not judged every image
    total, good = np.zeros((0, 0)), list[int]()
    first: NDArray[np.bool_] | None = None
    for number, kept in each_kept(entry.path, record, kept_digest(record, index), num_folds=folds):
        logits = kept.logits.astype(np.float64)
        right = logits.argmax(1) == kept.labels
        first = right if first is None else first
        test = compare_paired(first, right)
        if test.difference > 0 and test.p_value < _WORSE_P:
            continue
        probabilities = scaled_probabilities(logits, fit_temperature(logits, kept.labels))
        total = total + probabilities if good else probabilities
        good.append(number)
        if len(good) == _MAX_TRIALS:
            break
    return total / max(len(good), 1), good


def _by_heads(
    sizes: Mapping[str, int | None], file: SpaceFile, index: ImageIndex
) -> tuple[Mapping[str, Mapping[str, Floats]], str]:
    """By backbone and split the predictions of linear heads that leave each image out; and why some are missing.

    Args:
        sizes: By backbone the image size of its trials.
    """
    from tlsearch.trial import frozen_features

    train, val = index.splits["train"], index.splits["val"]
    if len(train) + len(val) > _MAX_IMAGES:
        return {}, f"Training images are judged where train and val have at most {_MAX_IMAGES:,} images."
    labels = np.concatenate([index.label_array("train"), index.label_array("val")])
    found, why = dict[str, Mapping[str, Floats]](), ""
    for backbone, image_size in sizes.items():
        try:
            config = TrialConfig(backbone=backbone, image_size=image_size)
            features = frozen_features(
                TrialAssignment(number=0, seed=0, config=config, setup=file.trial_setup(), directory="")
            )
        except (UserError, Infeasible) as error:
            why = f"{backbone} judged no image: {error}."
            continue
        rows = np.concatenate([features["train"].numpy(), features["val"].numpy()])
        both = leave_one_out(rows, labels, len(index.classes))
        found[backbone] = {"train": both[: len(train)], "val": both[len(train) :]}
    return found, why


def _doubtful(opinions: Mapping[str, list[Floats]], index: ImageIndex) -> Iterable[DoubtfulLabel]:
    for name, theirs in opinions.items():
        if not theirs:
            continue
        split = index.splits[name]
        labels = index.label_array(name)
        for one in contradictions(np.mean(theirs, axis=0), labels):
            yield DoubtfulLabel(
                key=split.keys[one.row],
                split=name,
                label=label_text(split.labels[one.row], index.classes),
                suggested=index.classes[one.suggested],
                confidence=one.confidence,
                label_probability=one.label_probability,
            )


def _judges(num_trials: int, backbones: list[str]) -> str:
    trials = [f"the kept logits of {plural(num_trials, 'good trial')}"] if num_trials else []
    heads = [f"linear heads on features of {', '.join(backbones)} that leave each image out"] if backbones else []
    return " and ".join(trials + heads)
