"""``tlsearch ensemble``: one model of several trials that averages their probabilities, in combined/ensemble.

The members are selected from the validation logits that every trial keeps; only members whose model was evicted are
trained again. Trials with folds are selected by what they say of the images that each fold holds out, and the members
are then trained on all images, as in stacking (van der Laan et al., "Super Learner", 2007). The command can be called
again after any death: the ensemble counts once its file is written, last.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.ensemble_costs import EnsembleCosts, Limits, ModelCost
from tlsearch.app.combined.members import member_checkpoints
from tlsearch.app.searches.input_digests import unchanged_inputs
from tlsearch.config.ensemble_meta import EnsembleMeta
from tlsearch.core.codec import fields_of
from tlsearch.core.errors import UserError
from tlsearch.core.text import plural
from tlsearch.core.types import SearchRecord
from tlsearch.results import load_model
from tlsearch.results.combine.combination import (
    Combination,
    Worth,
    combined_model,
    read_combination,
    replacing,
    write_combination,
)
from tlsearch.results.combine.kept_logits import Kept, read_kept
from tlsearch.results.combine.selection import MAX_MODELS, Selected, select_ensemble
from tlsearch.results.inference.labelled import check_classes
from tlsearch.results.inference.networks import AveragedNetworks, transforms_of
from tlsearch.results.leaderboard.search_facts import measure_module
from tlsearch.search import holding
from tlsearch.train import ensemble_member, read_ensemble_meta, save_ensemble

logger = logging.getLogger(__name__)


def make_ensemble(
    entry: SearchEntry,
    *,
    max_models: int = MAX_MODELS,
    max_latency_ms: float | None = None,
    max_params: int | None = None,
    address: str = "local",
) -> Combination:
    """Selects members of a search's trials, and keeps their model; where none helps, that of the best single trial.

    Args:
        max_models: The most members.
        max_latency_ms: Of one image on this machine's CPU, one thread.
        max_params: Of the whole model.
        address: Where members that were evicted are trained again, as for `SearchPlan`.

    Raises:
        UserError: No trial has kept its logits, or none is within the limits.
        SpaceError: The data are gone.
        DataError: Images or weights have changed since the search, or classes differ.
        SearchStopped: A member could not be trained again.
        StorageError: Another process has the search.
    """
    with holding(entry.path, "ensemble"):
        file, index = unchanged_inputs(entry, purpose="its trials cannot be combined")
        record = read_record(entry)
        kept = read_kept(entry.path, record, index)
        if not kept.trials:
            raise UserError(_no_logits(record))
        _say_left_out(kept, len(record.ranked))
        costs = EnsembleCosts(file, len(index.classes), record.trials)
        limits = Limits(latency_ms=max_latency_ms, parameters=max_params)
        folds, slower = any(trial.folds for trial in record.trials), 1.0
        while True:
            selected = select_ensemble(
                kept.trials,
                kept.logits,
                kept.labels,
                metric=record.metric,
                max_models=max_models,
                fits=costs.fits(limits, slower=slower),
            )
            if selected is None:
                raise UserError(f"no trial of {entry.search_id} is within the limits: {limits.text}")
            numbers = [member.trial for member in selected.members]
            folders = member_checkpoints(entry, file, numbers, refit=folds, address=address)
            made = _measure(_write_model(entry, record.metric, selected, folders, index.classes))
            if len(numbers) == 1 or limits.latency_ms is None or made.latency_ms <= limits.latency_ms:
                return _keep(entry, record, selected, made, costs.alone(selected.best_trial), len(kept.labels))
            slower = made.latency_ms / costs.latency_ms(numbers)  # larger each time, and these members no longer fit
            logger.warning(
                "the ensemble of trials %s takes %.1f ms, at most %g are allowed: selecting a faster one",
                ", ".join(map(str, numbers)),
                made.latency_ms,
                limits.latency_ms,
            )


def _say_left_out(kept: Kept, num_ranked: int) -> None:
    reasons = {
        "no validation logits were kept": kept.missing,
        "they were stopped after fewer folds, and have judged fewer images": kept.partial,
        "more values than are read at a time": kept.left_out,
    }
    for why, trials in reasons.items():
        if trials:
            logger.warning("%s of %d with a result left out: %s", plural(len(trials), "trial"), num_ranked, why)


def _no_logits(record: SearchRecord) -> str:
    if record.best is None:
        return f"the search {record.search_id} has no trial with a result yet"
    return (
        f"an ensemble is selected by the validation logits that each trial keeps, and no trial of {record.search_id} "
        "has any: an earlier version of tlsearch ran it, or its validation images times classes are too many to keep "
        "(with search.folds the images of train and val, times epochs). Run the search again with this version, or "
        "promote the best trial"
    )


def _write_model(
    entry: SearchEntry, metric: str, selected: Selected, folders: Mapping[int, Path], classes: tuple[str, ...]
) -> Path:
    """Replaces the model unless it is the same; without the file that says what it is worth until that is written."""
    members = tuple(
        ensemble_member(folders[one.trial], trial=one.trial, count=one.count, temperature=temperature)
        for one, temperature in zip(selected.members, selected.temperatures, strict=True)
    )
    for member in members:
        check_classes(member.checkpoint.meta.classes, classes)
    meta = EnsembleMeta(
        members=members,
        metric=metric,
        value=selected.value,
        cross_fitted=selected.cross_fitted,
        thresholds=selected.thresholds,
    )
    folder = combined_model(entry.path, "ensemble")
    same = folder.is_dir() and read_combination(entry.path, "ensemble") is not None and _is_same(folder, meta)
    if not same:
        with replacing(entry.path, "ensemble"):
            save_ensemble(folder, meta, [folders[member.trial] for member in members])
    return folder


def _keep(
    entry: SearchEntry, record: SearchRecord, selected: Selected, made: ModelCost, best: ModelCost, num_val: int
) -> Combination:
    """Writes the file that says what the model is worth and needs."""
    combination = Combination(
        kind="ensemble",
        members=selected.members,
        metric=record.metric,
        parameters=made.parameters,
        latency_ms=made.latency_ms,
        num_val=num_val,
        best_parameters=best.parameters,
        best_latency_ms=best.latency_ms,
        **fields_of(Worth, selected),
    )
    return write_combination(entry.path, combination, record)


def _is_same(folder: Path, meta: EnsembleMeta) -> bool:
    try:
        return read_ensemble_meta(folder) == meta
    except UserError:
        return False


def _measure(folder: Path) -> ModelCost:
    """Parameters and milliseconds for one image, of the model as it is: what members share counts once."""
    model = load_model(folder, device="cpu")
    module = AveragedNetworks(model.networks).eval()
    inputs = [torch.zeros(1, one.channels, one.crop_size, one.crop_size) for one in transforms_of(model.networks)]
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return ModelCost(parameters=parameters, latency_ms=measure_module(module, inputs))
