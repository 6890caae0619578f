"""What commands read, add and delete of a search that MLflow holds already."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tlsearch.core.codec import parse_json
from tlsearch.core.errors import TrackingError
from tlsearch.core.secrets import mask
from tlsearch.core.types import RecordedSearch
from tlsearch.tracking.mlflow_database import Away, Refused, sqlite_path
from tlsearch.tracking.mlflow_store import connect, errors_told, find_experiment, open_experiment, store_errors
from tlsearch.tracking.reach import refusal
from tlsearch.tracking.registry.logged_models import delete_model, find_models
from tlsearch.tracking.runs import KIND, find_runs, pages, trial_number

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_TEST_USE = "tlsearch.test_use."
_MAX_TAG = 5000
_PAGE = 200


def find_run_ids(search: RecordedSearch) -> dict[int, str]:
    """The MLflow runs of a search's trials, by trial number; reads only.

    Empty, with a warning, where MLflow cannot be read, whatever the reason: results come from the study.
    """
    try:
        require_file(search.uri, search.experiment)
        client = connect(search.uri)
        found = find_experiment(client, search.experiment, search.uri)
        if found is None:
            raise TrackingError(f"MLflow at {mask(search.uri)} has no experiment {search.experiment!r}")
        with store_errors(search.uri):
            runs = list(find_runs(client, found.experiment_id, search))
    except Exception as error:
        logger.warning("the ids of MLflow runs are left out: %s", error)
        return {}
    ids: dict[int, str] = {}
    for run in runs:
        number = trial_number(run)
        if number is not None:
            ids.setdefault(number, run.info.run_id)
    return dict(sorted(ids.items()))


def require_file(uri: str, experiment: str) -> None:
    """Looks at a SQLite store before MLflow does, which would make a missing one, and change one of another version.

    Raises:
        TrackingError: It does not exist, or this MLflow cannot use it.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    if not path.exists() or path.stat().st_size == 0:
        raise TrackingError(f"the MLflow database {path} does not exist")
    if found := refusal(uri, experiment):
        raise TrackingError(f"the MLflow database cannot be read: {found.text}; {found.advice}")


def log_search_files(
    search: RecordedSearch, files: Mapping[str, Path], *, tags: Mapping[str, str] | None = None
) -> str | None:
    """Adds files to the artifacts of a search's own run, and tags to it; what is there under the same name is replaced.

    Args:
        files: Local files by their path among the artifacts, as ``plots/history.png``.
        tags: Set after the files.

    Returns:
        The id of the run; None, with a warning, where MLflow cannot take them, whatever the reason: the files are
        in the search's folder.
    """
    uri = search.uri
    try:
        path = sqlite_path(uri)
        if path is not None and not path.exists():
            raise TrackingError(f"{path} does not exist")
        client = connect(uri)
        found = find_experiment(client, search.experiment, uri)
        if found is None:
            raise TrackingError(f"it has no experiment {search.experiment!r}")
        with store_errors(uri):
            runs = find_runs(client, found.experiment_id, search)
            parent = next((run for run in runs if run.data.tags.get(KIND) == "search"), None)
            if parent is None:
                raise TrackingError(f"it has no run of {search.search_id}")
            for name, file in files.items():
                folder = str(PurePosixPath(name).parent)
                assert file.name == PurePosixPath(name).name, "MLflow keeps a file's name"
                client.log_artifact(parent.info.run_id, str(file), None if folder == "." else folder)
            for key, value in (tags or {}).items():
                client.set_tag(parent.info.run_id, key, value)
    except (TrackingError, Away, Refused) as error:
        logger.warning("%s: not logged to MLflow at %s: %s", ", ".join(files), mask(uri), error)
        return None
    return str(parent.info.run_id)


def read_test_uses(uri: str, *, experiment: str, digest: str) -> list[dict[str, object]]:
    """The looks at a test split that the experiment has on record, oldest first.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    with errors_told(uri):
        client = connect(uri)
        found = find_experiment(client, experiment, uri)
        text = found.tags.get(_TEST_USE + digest[:16]) if found else None
        return parse_json(text, f"the record of the test split's use in {uri}", list) if text else []


def write_test_uses(uri: str, *, experiment: str, digest: str, uses: list[dict[str, object]]) -> None:
    """Puts the looks at a test split on record; where a tag cannot hold all, the oldest and the newest.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    kept = list(uses)
    while len(text := json.dumps(kept, separators=(",", ":"))) > _MAX_TAG and len(kept) > 2:
        del kept[1]
    with errors_told(uri):
        client = connect(uri)
        client.set_experiment_tag(open_experiment(client, experiment, uri), _TEST_USE + digest[:16], text)


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """What was deleted; ``num_registered`` models stay with their runs, since registered versions are made of them."""

    num_runs: int = 0
    num_models: int = 0
    num_registered: int = 0


def delete_runs(search: RecordedSearch) -> Deleted:
    """Deletes a search's runs, as MLflow does (``mlflow gc`` removes them for good), and its models with their files.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
    """
    uri = search.uri
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return Deleted()
    try:
        client = connect(uri)
        found = find_experiment(client, search.experiment, uri)
        if found is None:
            return Deleted()
        with store_errors(uri):
            return _delete(client, found.experiment_id, search)
    except (Away, Refused) as error:
        raise TrackingError(f"MLflow at {uri} cannot delete the runs of {search.search_id}: {error}") from error


def _delete(client: MlflowClient, experiment_id: str, search: RecordedSearch) -> Deleted:
    sources, needed = _registered(client)
    num_models = num_registered = 0
    for model in find_models(client, experiment_id, search):
        if model.model_id in sources or model.artifact_location in sources:
            num_registered += 1
            needed.add(model.source_run_id or "")
        else:
            delete_model(client, model, tracking_uri=search.uri)
            num_models += 1
    runs = list(find_runs(client, experiment_id, search))
    deleted = [run for run in runs if run.info.run_id not in needed]
    if len(deleted) < len(runs):  # their run hangs in the search's
        deleted = [run for run in deleted if run.data.tags.get(KIND) != "search"]
    for run in sorted(deleted, key=lambda run: run.data.tags.get(KIND) == "search"):
        client.delete_run(run.info.run_id)
    return Deleted(num_runs=len(deleted), num_models=num_models, num_registered=num_registered)


def _registered(client: MlflowClient) -> tuple[set[str], set[str]]:
    """Models and their places that registered versions are made of, and the runs of these versions."""
    sources, runs = set[str](), set[str]()
    for version in pages(lambda token: client.search_model_versions(max_results=_PAGE, page_token=token)):
        sources |= {str(one) for one in (version.source, getattr(version, "model_id", None)) if one}
        runs |= {version.run_id} if version.run_id else set()
    return sources, runs
