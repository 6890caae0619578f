"""What a repetition of a search's best configurations says, kept in the search's folder as confirm.json."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.make_soup import repeated_trial
from tlsearch.app.production.confirm import PreparedConfirm
from tlsearch.app.views.outcome import search_alternatives
from tlsearch.core.codec import fields_of, read_shaped, to_plain
from tlsearch.core.errors import TrialError
from tlsearch.core.files import write_atomically
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.layout import evict_trial
from tlsearch.core.text import command
from tlsearch.core.types import ModelSpec, Objective, SearchRecord, TrialRecord, TrialState
from tlsearch.data import ImageIndex
from tlsearch.model import describe_model
from tlsearch.results import load_model, logits_on
from tlsearch.results.combine.alternatives import Alternative
from tlsearch.results.combine.kept_logits import read_trial
from tlsearch.results.stats.seed_tests import Values
from tlsearch.results.stats.verdict import Candidate, Confirmed, Repeated, Step, judge
from tlsearch.tracking import log_search_files

CONFIRMED = "confirm.json"


@dataclass(frozen=True, kw_only=True)
class Confirmation(Confirmed):
    """The verdict on a search's best configurations, and what else the search can give.

    Attributes:
        alternatives: Best trial, soup, ensemble and distilled model of the search side by side, as far as they exist.
    """

    alternatives: tuple[Alternative, ...] = ()


def beside_others(entry: SearchEntry, confirmed: Confirmed) -> Confirmation:
    """The verdict with the search's models side by side, as they are now.

    Raises:
        StorageError: A file of a combination is damaged.
    """
    return Confirmation(**fields_of(Confirmed, confirmed), alternatives=search_alternatives(entry))


def conclude(confirm: PreparedConfirm) -> Confirmed:
    """Judges the repetition, keeps the trainings that are used later and writes the result into the search's folder.

    Done once: called again for the same trainings it gives what it gave. The search's run in MLflow gets the file, too.

    Raises:
        TrialError: No training has a result.
    """
    record = read_record(confirm.prepared.entry)
    earlier = read_confirmed(confirm.entry)
    if earlier is not None and _is_of(earlier, record):
        return earlier
    repeated = _repeated(confirm, record)
    if not any(one.values for one in repeated):
        errors = "; ".join(sorted({trial.error for trial in record.trials if trial.error})) or "all diverged"
        raise TrialError(
            f"no training of {record.search_id} has a result: {errors}. They are not tried again: mend the cause, "
            f"remove them by {command('remove', record.search_id)}, and confirm again"
        )
    objective, file, index = record.objective, confirm.prepared.file, confirm.prepared.index
    step: Step = "fold" if file.search.num_folds else "epoch"
    verdict = judge(repeated, objective, step=step)
    result = Confirmed(
        search_id=confirm.entry.search_id,
        confirm_search_id=record.search_id,
        experiment=record.experiment,
        metric=record.metric,
        mode=objective.mode,
        data_digest=index.digest,
        num_val_images=len(index.splits["val"]) + (len(index.splits["train"]) if file.search.num_folds else 0),
        seeds=file.search.seeds,
        step=step,
        ended=time.time(),
        candidates=tuple(Candidate.of(one, rank, objective) for rank, one in enumerate(verdict.ranking, start=1)),
        comparisons=verdict.comparisons,
        outcome=verdict.outcome,
        recommended=verdict.recommended,
        verdict=verdict.text,
    )
    write_atomically(confirm.entry.path / CONFIRMED, json.dumps(to_plain(result), indent=2))
    _keep_trainings(confirm, result)
    log_search_files(
        confirm.entry.recorded,
        {CONFIRMED: confirm.entry.path / CONFIRMED},
        tags={"tlsearch.confirmed_by": record.search_id, "tlsearch.verdict": verdict.text},
    )
    return result


def read_confirmed(entry: SearchEntry) -> Confirmed | None:
    """What the last ``confirm`` of a search said; None where there was none.

    Raises:
        StorageError: The file is damaged.
    """
    path = entry.path / CONFIRMED
    if not path.exists():
        return None
    return read_shaped(path, Confirmed)


def _is_of(result: Confirmed, record: SearchRecord) -> bool:
    """Whether a result is the verdict on just these trainings."""
    judged = {one.trial for candidate in result.candidates for one in candidate.values}
    done = {trial.number for trial in record.trials if trial.state is TrialState.COMPLETE}
    return result.confirm_search_id == record.search_id and judged == done


def _repeated(confirm: PreparedConfirm, record: SearchRecord) -> list[Repeated]:
    num = len(confirm.candidates)
    index = confirm.prepared.index
    found = []
    for position, candidate in enumerate(confirm.candidates):
        rounds = {trial.number // num: trial for trial in record.trials if trial.number % num == position}
        good = {
            seed: trial
            for seed, trial in sorted(rounds.items())
            if trial.best_value is not None and trial.state is TrialState.COMPLETE
        }
        spec = ModelSpec.of(candidate.config, confirm.prepared.file.data, len(index.classes))
        times = [seconds for trial in good.values() for seconds in trial.epoch_seconds]
        found.append(
            Repeated(
                trial=candidate.number,
                params=candidate.params,
                first_value=candidate.best_value,
                values={seed: float(trial.best_value or 0.0) for seed, trial in good.items()},
                trials={seed: trial.number for seed, trial in good.items()},
                parameters=describe_model(spec).parameters,
                epoch_seconds=fmean(times) if times and not candidate.config.solved else None,
                scores=_scores(confirm.prepared.entry, record.objective, good, index),
            )
        )
    return found


def _scores(
    entry: SearchEntry, objective: Objective, trials: Mapping[int, TrialRecord], index: ImageIndex
) -> dict[int, Values] | None:
    """What each validation image adds to the metric, larger is better, by seed; None where that is not known."""
    per_image = TASKS[index.task].metrics[objective.metric].per_image
    if per_image is None:
        return None
    scores = {}
    for seed, trial in trials.items():
        known = _predicted(entry, trial, index)
        if known is None:
            return None
        scores[seed] = objective.gain(per_image(*known))
    return scores


def _predicted(
    entry: SearchEntry, trial: TrialRecord, index: ImageIndex
) -> tuple[NDArray[np.float64], NDArray[Any]] | None:
    """Logits and labels of the validation images; of a trial with folds of all images, each as it was held out."""
    if trial.folds:
        kept = read_trial(entry.path, trial)
        return None if kept is None else (kept.logits.astype(np.float64), kept.labels)
    folder = entry.folder.best(trial.number)
    if not folder.is_dir():
        return None
    return logits_on(load_model(folder), index, "val").double().numpy(), index.label_array("val")


def _keep_trainings(confirm: PreparedConfirm, result: Confirmed) -> None:
    """Of each candidate the best one; of the trial that ``soup`` trains with other seeds all, which it takes."""
    kept = {candidate.best_trial for candidate in result.candidates}
    again = repeated_trial(read_record(confirm.entry), confirm.prepared.file)
    for candidate in result.candidates:
        if again is not None and candidate.trial == again.number:
            kept |= {one.trial for one in candidate.values}
    for folder in (confirm.prepared.entry.path / "trials").glob("*"):
        if folder.name not in map(str, kept):
            evict_trial(folder)
