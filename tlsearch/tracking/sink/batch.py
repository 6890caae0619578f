"""Entries of one trial gathered into one call, and calls within MLflow's limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlsearch.core.secrets import mask
from tlsearch.core.types import EpochReport, StartReport, TrialOutcome
from tlsearch.tracking.runs import ERROR, REASON, STATE, KnownRun, Point, cut
from tlsearch.tracking.sink.entries import (
    DropModel,
    Entry,
    KeepModel,
    SearchProgress,
    TrialEnd,
    TrialReport,
    TrialStart,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_MAX_ERROR = 2000


@dataclass(kw_only=True)
class TrialBatch:
    """What is to be said of one trial in one go; later entries win."""

    at: float
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    started: bool = False
    end: TrialEnd | None = None

    def add(self, entry: TrialStart | TrialReport | TrialEnd) -> None:
        """Adds the next entry of the trial."""
        match entry:
            case TrialStart():
                self.params.update(entry.params)
                self.tags[STATE] = "running"
                self.started, self.end = True, None
            case TrialReport():
                self.points += report_points(entry.report)
            case TrialEnd():
                outcome = entry.outcome
                self.tags |= {STATE: outcome.state.value, REASON: outcome.reason}
                if outcome.error:
                    self.tags[ERROR] = cut(mask(outcome.error), _MAX_ERROR)
                self.end = entry


def report_points(report: EpochReport) -> Iterator[Point]:
    """The points of an epoch; before the first one those of the model at the start, as epoch 0.

    MLflow stores infinity as 1.8e308, so only finite values are sent.
    """
    by_epoch: dict[int, EpochReport | StartReport | None] = {0: report.start, report.epoch: report}
    for epoch, one in by_epoch.items():
        if one is None:
            continue
        for key, value in one.metrics.items():
            if math.isfinite(value):
                yield Point(key=key, value=value, time_ms=int(one.timestamp * 1000), step=epoch)


def summary_points(end: TrialOutcome, metric: str, time_ms: int) -> list[Point]:
    """``best_<metric>`` and ``best_epoch``, at the step and time of the best epoch."""
    if end.best_value is None or end.best_epoch is None or not math.isfinite(end.best_value):
        return []
    values = {f"best_{metric}": end.best_value, "best_epoch": float(end.best_epoch)}
    return [Point(key=key, value=value, time_ms=time_ms, step=end.best_epoch) for key, value in values.items()]


def is_summary(key: str, metric: str) -> bool:
    """Whether a metric of a trial's run tells of the whole trial, not of an epoch."""
    return key in (f"best_{metric}", "best_epoch")


def progress_points(progress: SearchProgress) -> list[Point]:
    """Where the search stands, at the step that counts the trials that have ended."""
    at = int(progress.at * 1000)
    finite = {key: value for key, value in progress.metrics.items() if math.isfinite(value)}
    return [Point(key=key, value=value, time_ms=at, step=progress.ended) for key, value in finite.items()]


def without_lost_models(entries: Sequence[Entry]) -> list[Entry]:
    """The entries without those models that a later one drops again: they need not be uploaded."""
    dropped: set[int] = set()
    left: list[Entry] = []
    for entry in reversed(entries):
        if isinstance(entry, DropModel):
            dropped.add(entry.number)
        elif isinstance(entry, KeepModel) and entry.number in dropped:
            continue
        left.append(entry)
    return left[::-1]


def log(
    client: MlflowClient,
    run: KnownRun,
    *,
    params: Mapping[str, str],
    points: Sequence[Point] = (),
    tags: Mapping[str, str],
) -> None:
    """One call, unless MLflow's limits of one call ask for more. A logged param cannot change: it is not resent."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    new = {key: cut(value, MAX_PARAM_VAL_LENGTH) for key, value in params.items() if key not in run.params}
    texts = [Param(key, value) for key, value in new.items()]
    metrics = [Metric(point.key, point.value, point.time_ms, point.step) for point in points]
    while len(texts) > _PARAMS_PER_CALL or len(metrics) > _METRICS_PER_CALL:
        client.log_batch(run.run_id, metrics=metrics[:_METRICS_PER_CALL], params=texts[:_PARAMS_PER_CALL])
        metrics, texts = metrics[_METRICS_PER_CALL:], texts[_PARAMS_PER_CALL:]
    labels = [RunTag(key, value) for key, value in tags.items()]
    client.log_batch(run.run_id, metrics=metrics, params=texts, tags=labels)
    run.params |= new


def set_running(client: MlflowClient, run: KnownRun) -> None:
    """Opens a run again, unless it is open."""
    if run.status != "RUNNING":
        client.update_run(run.run_id, status="RUNNING")
        run.status = "RUNNING"


def log_texts(client: MlflowClient, run: KnownRun, texts: Mapping[str, str]) -> None:
    """Writes texts among a run's artifacts, by file name."""
    for name, text in texts.items():
        client.log_text(run.run_id, text, name)
