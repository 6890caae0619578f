"""``tlsearch promote --distill``: one model of the search's space learns what the search's ensemble predicts.

The student is trained as its trial was, on augmented training images and with the teacher's probabilities mixed into
their labels (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015). The teacher sees the same
fixed views of the images as the student: each member through its own preprocessing, with the same draws.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.ensemble_costs import model_cost
from tlsearch.app.combined.members import DONE_FILE
from tlsearch.app.combined.members import FOLDER as TRAINED
from tlsearch.config import SpaceFile
from tlsearch.config.model_copies import copy_model
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import SearchStopped, UserError
from tlsearch.core.metrics import Objective
from tlsearch.core.text import command
from tlsearch.core.types import (
    CacheSpec,
    ModelSpec,
    TransformSpec,
    TrialAssignment,
    TrialConfig,
    TrialRecord,
    TrialSetup,
)
from tlsearch.data import ImageIndex, draw_view, open_pixels
from tlsearch.results import load_model
from tlsearch.results.combine.combination import (
    Combination,
    combined_model,
    read_combination,
    replacing,
    write_combination,
)
from tlsearch.results.inference.networks import transforms_of
from tlsearch.results.inference.predictor import logits_of
from tlsearch.results.promotion.test_split import checkpoint_digest
from tlsearch.train import (
    LOSSES,
    PixelSource,
    ViewSource,
    holds_soft_targets,
    mixed_with_labels,
    read_model_meta,
    write_json,
    write_soft_targets,
)
from tlsearch.trial import BEST_FOLDER, train_to

logger = logging.getLogger(__name__)

NUM_VIEWS = 4  # of each training image: each costs the teacher a pass over all of them
_AUGMENTATION = "light"  # of a student whose trial had none: without one the teacher only repeats the labels
_LONGER = 2  # times those of a trial: soft targets overfit later


def make_distilled(entry: SearchEntry, file: SpaceFile, index: ImageIndex, student: TrialRecord) -> Combination:
    """Trains the student of the search's ensemble, and keeps its model in combined/distilled.

    One that was made of the same is found again; a training that was killed goes on. The caller holds the search's
    lock, and has refused images and weights that have changed.

    Args:
        student: The trial whose configuration and seed the student has.

    Raises:
        UserError: The search has no ensemble of several trials; it has folds; or the student's head is solved.
        SearchStopped: The student could not be trained.
        StorageError: The ensemble's files are damaged.
    """
    if student.folds:
        raise UserError(
            "a distilled model is judged by validation images that its teacher has not seen, and the ensemble of "
            f"{entry.search_id}, whose trials have folds, is trained on all of them: `tlsearch promote "
            f"{entry.search_id} --ensemble` takes the ensemble itself"
        )
    if student.config.solved:
        raise UserError(
            f"a distilled model has the configuration of a trial, here trial {student.number}, whose head is solved by "
            f"the labels ({student.config.head}): nothing trains, so it cannot learn from the ensemble; "
            f"{command('promote', entry.search_id, '--ensemble')} takes the ensemble itself"
        )
    ensemble = _teacher(entry)
    assert student.best_value is not None, "a student's trial has a result"
    teacher = combined_model(entry.path, "ensemble")
    setup = file.trial_setup()
    augmentation = student.config.augmentation if student.config.augmentation != "none" else _AUGMENTATION
    config = replace(student.config, augmentation=augmentation)
    content = _content(student, config, teacher, index)
    folder = entry.path / TRAINED / f"{student.number}-distilled-{content[:12]}"
    setup = replace(setup, cache=replace(setup.cache, views=NUM_VIEWS), max_epochs=_LONGER * setup.max_epochs)
    if not (folder / DONE_FILE).is_file():
        targets = folder / "targets.safetensors"
        if not holds_soft_targets(targets, content):
            write_soft_targets(targets, _targets(index, setup.cache, augmentation, teacher), made_from=content)
            crash_point("soft_targets")
        _train(student, config, replace(setup, soft_targets=str(targets)), folder)
        crash_point("student_trained")
    return _keep(entry, file, index, ensemble, student, folder / BEST_FOLDER)


def _teacher(entry: SearchEntry) -> Combination:
    search, ensemble = entry.search_id, read_combination(entry.path, "ensemble")
    if ensemble is None:
        raise UserError(
            f"a distilled model learns from the search's ensemble, and {search} has none yet; "
            f"{command('ensemble', search)} makes one"
        )
    if len(ensemble.members) == 1:
        raise UserError(
            f"a distilled model learns from an ensemble of several trials, and that of {search} is trial "
            f"{ensemble.best_trial} alone, since no average was better: {command('promote', search)} takes a trial"
        )
    return ensemble


def _train(student: TrialRecord, config: TrialConfig, setup: TrialSetup, folder: Path) -> None:
    assignment = TrialAssignment(
        number=student.number, seed=student.seed, config=config, setup=setup, directory=str(folder), shares=True
    )
    logger.info("distillation: %d epochs for the student", setup.max_epochs)
    if error := train_to(assignment, setup.max_epochs):
        raise SearchStopped(f"the student of trial {student.number} could not be trained: {error}")
    write_json(folder / DONE_FILE, {"epoch": setup.max_epochs})


def _keep(
    entry: SearchEntry, file: SpaceFile, index: ImageIndex, ensemble: Combination, student: TrialRecord, best: Path
) -> Combination:
    """Puts the model where combinations lie, then writes the file that says so."""
    with replacing(entry.path, "distilled") as model:
        copy_model(best, model)
    meta = read_model_meta(model)
    cost = model_cost(ModelSpec.of(meta.config, file.data, len(index.classes)))  # also of the student's trial
    assert student.best_value is not None
    combination = Combination(
        kind="distilled",
        members=ensemble.members,
        metric=meta.metric,
        value=meta.value,
        cross_fitted=meta.value,
        best_trial=student.number,
        best_value=student.best_value,
        best_cross_fitted=student.best_value,
        parameters=cost.parameters,
        latency_ms=cost.latency_ms,
        num_val=len(index.splits["val"]),
        helps=Objective.of(meta.metric).better(meta.value, student.best_value),
        best_parameters=cost.parameters,
        best_latency_ms=cost.latency_ms,
    )
    return write_combination(entry.path, combination, read_record(entry))


def _content(student: TrialRecord, config: TrialConfig, teacher: Path, index: ImageIndex) -> str:
    """Stands for all that the student depends on."""
    parts = [student.seed, asdict(config), checkpoint_digest(teacher), index.digest, NUM_VIEWS, _LONGER]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _targets(index: ImageIndex, cache: CacheSpec, augmentation: str, folder: Path) -> Mapping[int, Tensor]:
    """The targets of each view, float32 (N, C): each network of the teacher sees it through its own preprocessing."""
    labels, teacher = torch.from_numpy(index.label_array("train")), load_model(folder)
    probabilities_of = LOSSES[index.task].probabilities
    targets = {}
    for view in range(1, NUM_VIEWS + 1):
        logger.info("distillation: the teacher looks at view %d of %d of the images", view, NUM_VIEWS)
        sources = [_view(one, index, cache, augmentation, view) for one in transforms_of(teacher.networks)]
        targets[view] = mixed_with_labels(probabilities_of(logits_of(teacher, sources).double()), labels)
    return targets


def _view(transform: TransformSpec, index: ImageIndex, cache: CacheSpec, augmentation: str, view: int) -> PixelSource:
    pixels = open_pixels(index, "train", transform, cache, margin=True)
    side = pixels.images.shape[-1]
    drawn = draw_view(augmentation, view, data_digest=index.digest, num_images=len(pixels.labels), side=side)
    return ViewSource(
        reason="distillation",
        rows=pixels.images,
        labels=pixels.labels,
        transform=transform,
        augmentation=augmentation,
        drawn=drawn,
    )
