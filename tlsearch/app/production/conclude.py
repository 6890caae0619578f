"""What a repetition of a search's best configurations says, kept in the search's folder as confirm.json."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from tlsearch.app.catalog.catalog import SearchEntry, write_atomically
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.production.confirm import PreparedConfirm
from tlsearch.core.codec import read_shaped
from tlsearch.core.errors import UserError
from tlsearch.core.metrics import METRICS
from tlsearch.core.types import SearchRecord, TrialRecord, TrialState
from tlsearch.data import ImageIndex
from tlsearch.model import describe_backbone
from tlsearch.results import load_model, logits_on
from tlsearch.results.stats.seed_tests import Difference, Values
from tlsearch.results.stats.verdict import Comparison, Repeated, Verdict, judge
from tlsearch.tracking import log_search_files

CONFIRMED = "confirm.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class _Value:
    trial: int


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    trial: int
    best_trial: int
    values: tuple[_Value, ...]


@dataclass(frozen=True, kw_only=True)
class _Confirmed:
    """What other commands read of ``confirm.json``."""

    confirm_search_id: str
    seeds: int
    recommended: int
    verdict: str
    candidates: tuple[_Candidate, ...]


def conclude(confirm: PreparedConfirm) -> dict[str, Any]:
    """Judges the repetition, keeps each candidate's best training and writes the result into the search's folder.

    Done once: called again for the same trainings it gives what it gave.

    Returns:
        What is written to ``confirm.json``, also to the search's run in MLflow.

    Raises:
        UserError: No training has a result.
    """
    record = read_record(confirm.prepared.entry)
    earlier = read_confirmed(confirm.entry)
    if earlier is not None and _is_of(earlier, record):
        return earlier
    repeated = _repeated(confirm, record)
    if not any(one.values for one in repeated):
        errors = "; ".join(sorted({trial.error for trial in record.trials if trial.error})) or "all diverged"
        raise UserError(f"no training of {record.search_id} has a result: {errors}")
    verdict = judge(repeated, metric=record.metric, mode=record.mode)
    result = _as_json(confirm, record, verdict)
    write_atomically(confirm.entry.path / CONFIRMED, json.dumps(result, indent=2))
    _keep_best_trainings(confirm.prepared.entry, result)
    log_search_files(
        confirm.entry.tracking_uri,
        experiment=confirm.entry.experiment,
        search_id=confirm.entry.search_id,
        uid=confirm.entry.uid,
        files={CONFIRMED: confirm.entry.path / CONFIRMED},
        tags={"tlsearch.confirmed_by": record.search_id, "tlsearch.verdict": verdict.text},
    )
    return result


def read_confirmed(entry: SearchEntry) -> dict[str, Any] | None:
    """What the last ``confirm`` of a search said; None where there was none.

    Raises:
        StorageError: The file is damaged.
    """
    path = entry.path / CONFIRMED
    if not path.exists():
        return None
    return read_shaped(path, _Confirmed)


def _is_of(result: Mapping[str, Any], record: SearchRecord) -> bool:
    """Whether a result is the verdict on just these trainings."""
    judged = {one["trial"] for candidate in result["candidates"] for one in candidate["values"]}
    done = {trial.number for trial in record.trials if trial.state is TrialState.COMPLETE}
    return result["confirm_search_id"] == record.search_id and judged == done


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
        described = describe_backbone(
            candidate.config.backbone,
            num_classes=len(index.classes),
            image_size=confirm.prepared.file.data.image_size,
        )
        times = [r.metrics["epoch_seconds"] for t in good.values() for r in t.reports if "epoch_seconds" in r.metrics]
        found.append(
            Repeated(
                trial=candidate.number,
                params=candidate.params,
                first_value=candidate.best_value,
                values={seed: float(trial.best_value or 0.0) for seed, trial in good.items()},
                trials={seed: trial.number for seed, trial in good.items()},
                parameters=sum(stage.parameters for stage in described.stages),
                epoch_seconds=fmean(times) if times else 0.0,
                scores=_scores(confirm.prepared.entry, record.metric, good, index),
            )
        )
    return found


def _scores(
    entry: SearchEntry, metric: str, trials: Mapping[int, TrialRecord], index: ImageIndex
) -> dict[int, Values] | None:
    """What each validation image adds to the metric, larger is better, by seed; None where that is not known."""
    one = METRICS[metric]
    if one.per_image is None:
        return None
    labels, sign = np.array(index.splits["val"].labels), 1.0 if one.mode == "max" else -1.0
    scores = {}
    for seed, trial in trials.items():
        folder = entry.path / "trials" / str(trial.number)
        if not (folder / "best").is_dir():
            return None
        logits = logits_on(load_model(folder), index, "val")
        scores[seed] = sign * one.per_image(logits.double().numpy(), labels)
    return scores


def _as_json(confirm: PreparedConfirm, record: SearchRecord, verdict: Verdict) -> dict[str, Any]:
    ranked = []
    for rank, one in enumerate(verdict.ranking, start=1):
        mean = one.mean
        ranked.append(
            {
                "rank": rank,
                "trial": one.trial,
                "params": dict(one.params),
                "first_value": one.first_value,
                "mean": mean.value,
                "deviation": mean.deviation,
                "interval": [mean.interval.low, mean.interval.high] if mean.interval else None,
                "values": [{"seed": seed, "trial": one.trials[seed], "value": v} for seed, v in one.values.items()],
                "best_trial": _best_training(one, record.mode),
                "parameters": one.parameters,
                "epoch_seconds": one.epoch_seconds,
            }
        )
    return {
        "format": _FORMAT,
        "search_id": confirm.entry.search_id,
        "confirm_search_id": record.search_id,
        "experiment": record.experiment,
        "metric": record.metric,
        "mode": record.mode,
        "data_digest": confirm.prepared.index.digest,
        "num_val_images": len(confirm.prepared.index.splits["val"]),
        "seeds": confirm.prepared.file.search.seeds,
        "ended": time.time(),
        "candidates": ranked,
        "comparisons": [_comparison(one) for one in verdict.comparisons],
        "outcome": verdict.outcome,
        "recommended": verdict.recommended,
        "verdict": verdict.text,
    }


def _best_training(one: Repeated, mode: str) -> int:
    sign = 1.0 if mode == "max" else -1.0
    seed = max(one.values, key=lambda key: (sign * one.values[key], -key))
    return one.trials[seed]


def _comparison(one: Comparison) -> dict[str, Any]:
    def plain(test: Difference | None) -> dict[str, Any] | None:
        return asdict(test) if test is not None else None

    return {
        "first": one.first,
        "second": one.second,
        "better": one.better,
        "decisive": plain(one.decisive),
        "over_seeds": plain(one.over_seeds),
        "over_images": plain(one.over_images),
    }


def _keep_best_trainings(entry: SearchEntry, result: Mapping[str, Any]) -> None:
    kept = {str(candidate["best_trial"]) for candidate in result["candidates"]}
    for folder in (entry.path / "trials").glob("*"):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
