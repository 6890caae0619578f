"""Deletes what a search has in MLflow, but for what a registered version needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsearch.errors import TrackingError
from tlsearch.tracking.models import delete_model, find_models
from tlsearch.tracking.runs import KIND, find_runs
from tlsearch.tracking.sqlite_file import sqlite_path
from tlsearch.tracking.store import connect, find_experiment, store_errors
from tlsearch.tracking.worker import Away, Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 200


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """What was deleted; ``num_registered`` models stay with their runs, since registered versions are made of them."""

    num_runs: int = 0
    num_models: int = 0
    num_registered: int = 0


def delete_runs(uri: str, *, experiment: str, search_id: str, uid: str) -> Deleted:
    """Deletes a search's runs, as MLflow does (``mlflow gc`` removes them for good), and its models with their files.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return Deleted()
    try:
        client = connect(uri)
        found = find_experiment(client, experiment, uri)
        if found is None:
            return Deleted()
        with store_errors(uri):
            return _delete(client, uri, found.experiment_id, search_id, uid)
    except (Away, Refused) as error:
        raise TrackingError(f"MLflow at {uri} cannot delete the runs of {search_id}: {error}") from error


def _delete(client: MlflowClient, uri: str, experiment_id: str, search_id: str, uid: str) -> Deleted:
    sources, needed = _registered(client)
    num_models = num_registered = 0
    for model in find_models(client, experiment_id, search_id, uid):
        if model.model_id in sources or model.artifact_location in sources:
            num_registered += 1
            needed.add(model.source_run_id or "")
        else:
            delete_model(client, model, tracking_uri=uri)
            num_models += 1
    runs = list(find_runs(client, experiment_id, search_id, uid))
    deleted = [run for run in runs if run.info.run_id not in needed]
    if len(deleted) < len(runs):  # their run hangs in the search's
        deleted = [run for run in deleted if run.data.tags.get(KIND) != "search"]
    for run in sorted(deleted, key=lambda run: run.data.tags.get(KIND) == "search"):
        client.delete_run(run.info.run_id)
    return Deleted(num_runs=len(deleted), num_models=num_models, num_registered=num_registered)


def _registered(client: MlflowClient) -> tuple[set[str], set[str]]:
    """Models and their places that registered versions are made of, and the runs of these versions."""
    sources, runs = set[str](), set[str]()
    token: str | None = None
    while True:
        page = client.search_model_versions(max_results=_PAGE, page_token=token)
        for version in page:
            sources |= {str(one) for one in (version.source, getattr(version, "model_id", None)) if one}
            runs |= {version.run_id} if version.run_id else set()
        token = page.token
        if not token:
            return sources, runs
