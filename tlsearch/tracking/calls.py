"""What a store that answers is used through, and calls within MLflow's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsearch.tracking.batch import Point, cut
from tlsearch.tracking.models import ModelShelf
from tlsearch.tracking.runs import KnownRun, RunTable

if TYPE_CHECKING:
    from mlflow import MlflowClient

_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100


@dataclass(frozen=True, kw_only=True)
class Session:
    """What is known of the store while it answers."""

    client: MlflowClient
    experiment_id: str
    runs: RunTable
    shelf: ModelShelf


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
