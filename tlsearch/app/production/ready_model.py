"""A chosen model made ready for the test split and the registry: trained as its choice asks, and calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlsearch.app.combined.members import checkpoints_of
from tlsearch.app.production.choice import Choice
from tlsearch.app.production.fold_calibration import Calibration, held_out_calibration
from tlsearch.config import SpaceFile
from tlsearch.data import ImageIndex
from tlsearch.results import load_model, logits_on
from tlsearch.results.combine.combination import combined_model
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.stats.calibration import fit_temperature
from tlsearch.train import networks_of


@dataclass(frozen=True, kw_only=True)
class ReadyModel:
    """A chosen model, trained and calibrated.

    Attributes:
        refit: Whether it was trained on train and val together.
        single: Of a combination of trials the checkpoint of the best single one, made as its members are.
    """

    checkpoint: Path
    calibration: Calibration
    refit: bool
    single: Path | None = None


def make_ready(choice: Choice, file: SpaceFile, index: ImageIndex, *, refit: bool, compares: bool) -> ReadyModel:
    """Trains what the choice needs.

    A head that is solved takes no step that val could judge: it is solved on all images at no cost. Folds have judged
    by all images: the model is trained on all of them, for the epochs that suited the folds.

    Args:
        refit: Train on train and val together.
        compares: Whether a combination is compared with the best single trial.

    Raises:
        DataError: The classes of the model and of the data differ.
    """
    combination, trial = choice.combination, choice.trial
    calibration = held_out_calibration(choice, index)
    if combination is not None:
        checkpoint = combined_model(choice.entry.path, combination.kind)
        on_all = trial.folds > 0 and combination.kind == "ensemble"
        single = None
        if compares:
            single = train_on_all(choice, file) if on_all else find_or_train(choice, file)
        check_classes(networks_of(checkpoint)[0].classes, index.classes)
        calibration = calibration or _calibrated(checkpoint, index)
        return ReadyModel(checkpoint=checkpoint, calibration=calibration, refit=on_all, single=single)
    refit = refit or trial.best_epoch == 0 or trial.folds > 0
    if calibration is None:  # before a refit: val must be unseen
        checkpoint = find_or_train(choice, file)
        check_classes(networks_of(checkpoint)[0].classes, index.classes)
        calibration = _calibrated(checkpoint, index)
    if refit:
        checkpoint = train_on_all(choice, file)
    return ReadyModel(checkpoint=checkpoint, calibration=calibration, refit=refit)


def find_or_train(choice: Choice, file: SpaceFile) -> Path:
    """The checkpoint of the chosen trial; trained again, with the same seed, where the search has not kept it."""
    return checkpoints_of(choice.entry, file, [choice.trial])[choice.trial.number]


def train_on_all(choice: Choice, file: SpaceFile) -> Path:
    """The checkpoint of the chosen configuration, trained on train and val for its best number of epochs."""
    return checkpoints_of(choice.entry, file, [choice.trial], refit=True)[choice.trial.number]


def _calibrated(checkpoint: Path, index: ImageIndex) -> Calibration:
    """By the validation images, which the model has not seen."""
    model = load_model(checkpoint)
    logits = logits_on(model, index, "val").double().numpy()
    temperature = fit_temperature(logits, index.label_array("val"))
    return Calibration(temperature=temperature, thresholds=model.raw_thresholds)
