"""The models of a search's trials: as the search has kept them, or trained again with the trial's own seed.

What is trained again lies in the search's folder ``promoted/<number>``, ``promoted/<number>-refit`` where it was
trained on train and val together, or ``promoted/<number>-run-<k>`` where it was trained with another seed, and is found
there the next time. A killed training goes on from its running checkpoint.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.catalog import SearchEntry, repetitions
from tlsearch.app.catalog.stored import read_record
from tlsearch.config import SpaceFile
from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import SearchStopped, StorageError
from tlsearch.core.text import about_s, agree, plural
from tlsearch.core.types import TrialAssignment, TrialRecord, TrialState
from tlsearch.search.bucket import Mirror, machine_folder
from tlsearch.search.seeds import derive_seed
from tlsearch.train import read_json, read_model_meta, write_json
from tlsearch.trial import BEST_FOLDER, RUNNING_FOLDER, train_to

logger = logging.getLogger(__name__)

FOLDER = "promoted"  # of the search's folder: checkpoints that were trained after it
DONE_FILE = "trained.json"  # written last: up to which epoch
_CLOSE = 1e-6  # how far a training that is repeated on the same kind of device may be off
_RAY_S = 20.0  # that a start of Ray with its workers takes


def member_checkpoints(
    entry: SearchEntry, file: SpaceFile, numbers: Sequence[int], *, refit: bool = False, address: str = "local"
) -> Mapping[int, Path]:
    """The checkpoint folder of each of these trials, at its best epoch, by the trial's number.

    Trials that the search has not kept are trained again, as many at a time as its resources allow. The caller holds
    the search's lock, and has refused images and weights that have changed. Of trials with folds no model was kept:
    they are trained up to the common epoch of their folds.

    Args:
        file: The search's own.
        numbers: Trials with a result.
        refit: Models that were trained on train and val together.
        address: Where they are trained, as for `SearchPlan`.

    Raises:
        UsageError: The search has no such trial.
        UserError: A trial has no result; or the data are gone.
        SearchStopped: A training failed.
        ClusterError: Ray cannot be reached.
    """
    record = read_record(entry)
    trials = [record.trial_with_result(number) for number in dict.fromkeys(numbers)]
    trials = [replace(trial, best_epoch=trial.model_epoch) for trial in trials]
    return checkpoints_of(entry, file, trials, refit=refit, address=address)


def checkpoints_of(
    entry: SearchEntry,
    file: SpaceFile,
    trials: Sequence[TrialRecord],
    *,
    refit: bool = False,
    address: str = "local",
) -> Mapping[int, Path]:
    """As `member_checkpoints`, for trials whose ``best_epoch`` and ``best_value`` may be those of another epoch.

    The ``best_epoch`` of a trial with folds must be the common epoch of its folds.
    """
    suffix = "-refit" if refit else ""
    folders = {trial.number: entry.path / FOLDER / f"{trial.number}{suffix}" for trial in trials}
    found = {
        trial.number: (None if refit else _kept(entry, trial)) or _trained(folders[trial.number], trial)
        for trial in trials
    }
    missing = [trial for trial in trials if found[trial.number] is None]
    if again := [str(trial.number) for trial in missing if trial.best_epoch]:  # a head is solved again in a second
        which = f"{agree(len(again), 'trial', 'trials')} {', '.join(again)}"
        if refit:  # as it was asked for
            logger.info("%s: trained on train and val together", which)
        else:
            logger.warning("%s: not among the kept ones, trained again", which)
    trainings = [_training(file, trial, folders[trial.number], refit=refit) for trial in missing]
    errors = _train_all(entry, file, trainings, missing, address=address)
    failed = {trial.number: error for trial, error in zip(missing, errors, strict=True) if error}
    if failed:
        which = f"{agree(len(failed), 'trial', 'trials')} {', '.join(map(str, failed))}"
        raise SearchStopped(f"{which} could not be trained again: {next(iter(failed.values()))}")
    for trial in missing:
        folder = found[trial.number] = folders[trial.number] / BEST_FOLDER
        value, known = read_model_meta(folder).value, trial.best_value
        other = refit or trial.folds  # it saw other images than those that its value is of
        if not other and known is not None and not math.isclose(value, known, abs_tol=_CLOSE):
            logger.warning("trained again, trial %d reaches %.4f instead of %.4f", trial.number, value, known)
    return {number: folder for number, folder in found.items() if folder is not None}


def repeated_checkpoints(
    entry: SearchEntry, file: SpaceFile, trial: TrialRecord, runs: int, *, address: str = "local"
) -> Sequence[Path]:
    """The checkpoint folders of further trainings of a trial, with other seeds, each at its own best epoch.

    Those that ``confirm`` has trained and kept are taken before another one is trained. A training that fails, as one
    that diverges may, is left out with a warning, and so is one that was never better than its start, which all share.
    The caller holds the search's lock.

    Args:
        file: The search's own.
        trial: One that has trained; of a trial with folds the trainings end at the common epoch of its folds.
        runs: The number of trainings.
        address: Where they run, as for `SearchPlan`.

    Raises:
        ClusterError: Ray cannot be reached.
    """
    epochs = trial.model_epoch if trial.folds else trial.epochs_run
    repeats = {
        entry.path / FOLDER / f"{trial.number}-run-{run}": replace(
            trial, seed=derive_seed(trial.seed, "run", run), best_epoch=epochs
        )
        for run in range(1, runs + 1)
    }
    untrained = [(folder, one) for folder, one in repeats.items() if _trained(folder, one) is None]
    confirmed = _confirmed(entry, trial)[: len(untrained)]
    missing = dict(untrained[len(confirmed) :])
    if confirmed:
        logger.warning("trial %d: %s of `confirm` taken", trial.number, plural(len(confirmed), "training"))
    if missing:
        which, long = plural(len(missing), "other seed"), about_s(len(missing) * _seconds(trial))
        logger.warning("trial %d: trained with %s, %s of training", trial.number, which, long)
    trainings = [_training(file, one, folder, refit=False) for folder, one in missing.items()]
    errors = _train_all(entry, file, trainings, list(missing.values()), address=address)
    for error in filter(None, errors):
        logger.warning("a training of trial %d with another seed is left out: %s", trial.number, error)
    own = [folder / BEST_FOLDER for folder, one in repeats.items() if _trained(folder, one) is not None]
    ended = [*own, *confirmed]
    better = [folder for folder in ended if read_model_meta(folder).epoch]
    if len(better) < len(ended):
        which = plural(len(ended) - len(better), "training")
        logger.warning("%s of trial %d with other seeds never got better than the start: left out", which, trial.number)
    return better


def _confirmed(entry: SearchEntry, trial: TrialRecord) -> list[Path]:
    """The checkpoints of a trial's configuration in repetitions of the search; none of folds.

    Where a repetition has kept the best of them alone it is passed over: a choice among seeds would be chance.
    """
    found: list[Path] = []
    for made in repetitions(entry):
        alike = [one for one in read_record(made).trials if one.config == trial.config and not one.folds]
        whole = [_kept(made, one) for one in alike if one.state is TrialState.COMPLETE]
        kept = [folder for folder in whole if folder is not None]
        found += kept if len(kept) == len(whole) else []
    return found


def _kept(entry: SearchEntry, trial: TrialRecord) -> Path | None:
    """The checkpoint that the search has kept."""
    folder = entry.folder.best(trial.number)
    if not (folder / META_FILE).is_file():
        return None
    meta = read_model_meta(folder)
    return folder if meta.config == trial.config and meta.epoch == trial.best_epoch else None


def _trained(directory: Path, trial: TrialRecord) -> Path | None:
    """The checkpoint of a training that ended earlier."""
    folder = directory / BEST_FOLDER
    try:
        meta = read_model_meta(folder)
        epoch = read_json(directory / DONE_FILE, "the end of a training").get("epoch")
    except StorageError:
        return None
    return folder if meta.config == trial.config and epoch == trial.best_epoch else None


@dataclass(frozen=True, kw_only=True)
class _Training:
    """One trial's training up to an epoch; travels to workers.

    Attributes:
        remote: The search's address in its bucket, for workers that share no folder with this machine; empty for none.
    """

    assignment: TrialAssignment
    epoch: int
    remote: str = ""


def _training(file: SpaceFile, trial: TrialRecord, directory: Path, *, refit: bool) -> _Training:
    assert trial.best_epoch is not None, "a trial without a result has no best epoch"
    assignment = TrialAssignment(
        number=trial.number,
        seed=trial.seed,
        config=trial.config,
        setup=replace(file.trial_setup(), refit=refit, folds=0),
        directory=str(directory),
        shares=True,
    )
    return _Training(assignment=assignment, epoch=trial.best_epoch)


def _train_all(
    entry: SearchEntry, file: SpaceFile, trainings: Sequence[_Training], trials: Sequence[TrialRecord], *, address: str
) -> Sequence[str]:
    """In this process where that is sooner than a start of Ray, else as a search's trials are; the error of each."""
    if not trainings:
        return []
    if address == "local" and (len(trainings) == 1 or sum(map(_seconds, trials)) < _RAY_S):
        errors = []
        for training in trainings:
            errors.append(_train(training, None))
            crash_point("member_trained")
    else:
        from tlsearch.search.ray_tune.tasks import run_tasks

        shared = entry.remote if address != "local" else ""
        work = [replace(training, remote=shared) for training in trainings]

        def passed(training: _Training, error: str) -> None:
            crash_point("member_trained")

        errors = run_tasks(_train, work, file.resources, address=address, done=passed)
        for training in trainings if shared else ():
            Mirror(uri=shared, directory=entry.path).pull(_part(training))
    return errors


def _seconds(trial: TrialRecord) -> float:
    """What the epochs up to its best one took; of a trial with folds a whole fold."""
    if not trial.best_epoch or not trial.epoch_seconds:
        return 0.0
    return max(trial.epoch_seconds) if trial.folds else sum(trial.epoch_seconds)


def _part(training: _Training) -> str:
    return f"{FOLDER}/{Path(training.assignment.directory).name}"


def _train(training: _Training, gpus: float | None) -> str:
    """A training that was interrupted goes on or starts again; its error, empty where there was none.

    Args:
        gpus: See `TrialAssignment`.
    """
    assignment = replace(training.assignment, gpus=gpus)
    mirror = None
    if training.remote:
        mirror = Mirror(uri=training.remote, directory=machine_folder(f"{training.remote}#workers"))
        mirror.pull(_part(training))
        assignment = replace(assignment, directory=str(mirror.directory / _part(training)))
    directory = Path(assignment.directory)
    if not (directory / RUNNING_FOLDER).is_dir():
        shutil.rmtree(directory, ignore_errors=True)
    error = train_to(assignment, training.epoch)
    if not error:
        write_json(directory / DONE_FILE, {"epoch": training.epoch})
    if mirror is not None:
        mirror.push(_part(training))
    return error
