"""``tlsearch soup``: one model with the average of the weights of several trials, in the search's folder combined/soup.

Only trials that began alike can be averaged: of one backbone with one set of pretrained weights and one image size,
whose heads start from the same solved linear probe. A scheduler leaves few of them that have trained to their end, so
the best one is trained with some other seeds, and the soup starts from the average of all these. Trials with folds have
no models: the best of them are trained on the split of the data, whose validation images judge them and their averages.
The command can be called again after any death: trials that it has trained are found again, and a soup counts once its
file is written, which is last.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.ensemble_costs import model_cost
from tlsearch.app.combined.members import member_checkpoints, repeated_checkpoints
from tlsearch.app.searches.input_digests import unchanged_inputs
from tlsearch.config import SpaceFile
from tlsearch.config.model_copies import copy_model
from tlsearch.core.codec import fields_of
from tlsearch.core.errors import UserError
from tlsearch.core.label_tasks import task_of
from tlsearch.core.types import ModelSpec, SearchRecord, TrialRecord
from tlsearch.data import ImageIndex
from tlsearch.results import load_model, logits_on
from tlsearch.results.combine.combination import Combination, Member, Worth, replacing, write_combination
from tlsearch.results.combine.greedy_soup import SoupChoice, choose_soup
from tlsearch.search import holding
from tlsearch.space.bn_policies import bn_policy
from tlsearch.train import read_model_meta, save_confusion, save_model_checkpoint
from tlsearch.trial.weight_average import WeightAverages

logger = logging.getLogger(__name__)

MAX_MODELS = 8
RUNS = 4


@dataclass(frozen=True, kw_only=True)
class _Candidates:
    """Trials that may be averaged, best first, and the search's best trial where that is not among them.

    ``repeated`` is the best one that has trained: it is trained with other seeds.
    """

    trials: tuple[TrialRecord, ...]
    outside: tuple[TrialRecord, ...]
    repeated: TrialRecord | None = None

    @property
    def numbers(self) -> list[int]:
        return [trial.number for trial in self.trials]


def make_soup(
    entry: SearchEntry, *, max_models: int = MAX_MODELS, runs: int = RUNS, address: str = "local"
) -> Combination:
    """Averages the weights of a search's best trials, greedily, and keeps the model.

    Where the average does not help, the model that is kept is that of the best single trial.

    Args:
        max_models: The number of trials to try, from the best on.
        runs: The number of other seeds that the best of them is trained with, to be averaged too.
        address: Where trials are trained again, as for `SearchPlan`.

    Raises:
        UserError: No two trials can be averaged; says why.
        SpaceError: The data are gone.
        DataError: Images or weights have changed since the search.
        SearchStopped: A trial could not be trained again.
        StorageError: Another process has the search.
    """
    with holding(entry.path, "soup"):
        file, index = unchanged_inputs(entry, purpose="its trials cannot be averaged")
        record = read_record(entry)
        found = _candidates(record, file, max_models, repeat=runs > 0)
        folders = member_checkpoints(
            entry, file, [trial.number for trial in (*found.trials, *found.outside)], address=address
        )
        outside = {trial.number: folders[trial.number] for trial in found.outside}
        # A training with another seed has a number after those of all trials.
        repeats: dict[int, Path] = {}
        if found.repeated:
            again = repeated_checkpoints(entry, file, found.repeated, runs, address=address)
            repeats = dict(enumerate(again, start=len(record.trials)))
        averages = WeightAverages(
            {number: folders[number] for number in found.numbers} | repeats, file.trial_setup(), index
        )

        def logits(members: tuple[int, ...]) -> NDArray[np.floating]:
            if members[0] in outside:
                return logits_on(load_model(outside[members[0]]), index, "val").numpy()
            return averages.logits(members)

        chosen = choose_soup(
            found.numbers,
            logits,
            averages.labels,
            record.metric,
            start=[found.repeated.number, *repeats] if found.repeated else [],
            singles=[*found.numbers, *outside],
        )
        trials = [found.repeated.number if one in repeats and found.repeated else one for one in chosen.members]
        model = _write_model(entry, index, record.metric, chosen, averages, folders, trials)
        own, best = (
            ModelSpec.of(read_model_meta(one).config, file.data, len(index.classes))
            for one in (model, folders[chosen.best_trial])
        )
        return _keep(entry, record, chosen, trials, len(averages.labels), own=own, best=best)


def repeated_trial(record: SearchRecord, file: SpaceFile) -> TrialRecord | None:
    """The trial that a soup trains with other seeds; None where the search has none."""
    try:
        return _candidates(record, file, MAX_MODELS, repeat=True).repeated
    except UserError:
        return None


def _candidates(record: SearchRecord, file: SpaceFile, max_models: int, *, repeat: bool = False) -> _Candidates:
    """The best trials of the first group with two different models; groups come by their best trial.

    Where the best trial that has trained is to be repeated, one such trial is enough.
    """
    best = record.best
    if best is None:
        raise UserError(f"the search {record.search_id} has no trial with a result yet")
    groups: dict[tuple[str, int | None, str | None, bool], list[TrialRecord]] = {}
    for trial in record.ranked:
        config = trial.config
        source = file.weights_of(config.backbone)
        if config.solved or config.head_init != "probe" or source.kind == "none":
            continue
        alike = (config.backbone, config.image_size, config.features, bn_policy(config.bn_policy).recalibrates)
        group = groups.setdefault(alike, [])
        if trial.model_epoch == 0 and any(other.model_epoch == 0 for other in group):
            continue  # one and the same solved head
        group.append(trial)
    for group in groups.values():
        repeated = next((trial for trial in group[:max_models] if trial.model_epoch), None) if repeat else None
        if len(group) > 1 or repeated is not None:
            trials = tuple(group[:max_models])
            return _Candidates(trials=trials, outside=() if best in trials else (best,), repeated=repeated)
    raise UserError(
        f"weights are averaged over two or more trials that began alike, and {record.search_id} has none: of one "
        "backbone with pretrained weights and one image size, with head_init: probe, and better than the solved head "
        "that they began with (`tlsearch ensemble` combines any trials)"
    )


def _write_model(
    entry: SearchEntry,
    index: ImageIndex,
    metric: str,
    chosen: SoupChoice,
    averages: WeightAverages,
    folders: Mapping[int, Path],
    trials: Sequence[int],
) -> Path:
    """Replaces the model; without the file that says what it is worth until that is written."""
    with replacing(entry.path, "soup") as model:
        if chosen.helps:
            _write_average(model, averages, chosen.members, trials, metric, index)
        else:
            copy_model(folders[chosen.best_trial], model)
    return model


def _keep(
    entry: SearchEntry,
    record: SearchRecord,
    chosen: SoupChoice,
    trials: Sequence[int],
    num_val: int,
    *,
    own: ModelSpec,
    best: ModelSpec,
) -> Combination:
    """Measures a model like its own and one like the best trial's, then writes the file that says so."""
    costs = {spec: model_cost(spec) for spec in {own, best}}
    members = Counter(trials if chosen.helps else [chosen.best_trial])
    averaged = len(chosen.members) > 1  # else what halves would have averaged says nothing of this model
    combination = Combination(
        kind="soup",
        members=tuple(Member(trial=number, count=count) for number, count in members.most_common()),
        metric=record.metric,
        parameters=costs[own].parameters,
        latency_ms=costs[own].latency_ms,
        num_val=num_val,
        best_parameters=costs[best].parameters,
        best_latency_ms=costs[best].latency_ms,
        **fields_of(Worth, chosen if averaged else replace(chosen, cross_fitted=chosen.best_cross_fitted)),
    )
    return write_combination(entry.path, combination, record)


def _write_average(
    directory: Path,
    averages: WeightAverages,
    members: Sequence[int],
    trials: Sequence[int],
    metric: str,
    index: ImageIndex,
) -> None:
    """``trials`` are those that the members are trainings of."""
    alike = sorted(members)  # the sum of the same numbers in the same order
    logits, labels = averages.logits(alike), averages.labels
    task = task_of(labels)
    metrics = task.values(logits, labels)
    meta = replace(
        averages.metas[members[0]],
        metrics=metrics,
        metric=metric,
        value=metrics[metric],
        members=tuple(trials),
        thresholds=task.thresholds(logits, labels),
    )
    matrix = torch.from_numpy(task.confusion(logits, labels))
    save_confusion(directory, epoch=meta.epoch, classes=index.classes, matrix=matrix)
    save_model_checkpoint(directory, state=averages.state(alike), meta=meta)
