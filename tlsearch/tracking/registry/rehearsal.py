"""Everything that MLflow could refuse of a promotion, tried before the test split is opened, and taken back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tlsearch.core.errors import TrackingError
from tlsearch.core.files import first_existing
from tlsearch.core.types import RecordedSearch
from tlsearch.core.user_folders import scratch_folder
from tlsearch.tracking.mlflow_store import connect, errors_told, open_experiment, quoted, registered_name
from tlsearch.tracking.registry.logged_models import MODEL_TYPE, delete_model, find_models
from tlsearch.tracking.runs import KIND, find_runs, search_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

REHEARSAL = "rehearsal"
_NOTE = "tlsearch promote tries whether it may write here, and removes this again.\n"


def rehearse_promotion(search: RecordedSearch, *, alias: str, num_bytes: int) -> None:
    """Makes a run, a model with a file, a version and an alias, as a promotion does, and removes them.

    The version is one of a registered model of its own, ``NAME-rehearsal-...``, so that the model's versions are
    counted as before.

    Args:
        num_bytes: Of the model that is to be registered: its files must fit where they go.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses one of these calls, or its disk is too full.
    """
    with errors_told(search.uri):
        client = connect(search.uri)
        experiment_id = open_experiment(client, search.experiment, search.uri)
        with _taken_back(lambda: _remove_logged(client, experiment_id, search)):
            run_id, source = _log(client, experiment_id, {KIND: REHEARSAL, **search_tags(search)}, num_bytes)
            mark = search.uid[:8] or search.search_id
            _register(client, registered_name(search.experiment), mark, alias, run_id, source)


@contextmanager
def _taken_back(remove: Callable[[], None]) -> Iterator[None]:
    """Removes what the body made, and what a process that was killed has left; an error of the body counts first."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            remove()
        raise
    remove()


def _log(client: MlflowClient, experiment_id: str, tags: Mapping[str, str], num_bytes: int) -> tuple[str, str]:
    """The id of a run, and the place of a model with a file."""
    run = client.create_run(experiment_id, tags=dict(tags), run_name=REHEARSAL)
    _require_room(str(run.info.artifact_uri), num_bytes)
    run_id = str(run.info.run_id)
    model = client.create_logged_model(
        experiment_id, name=REHEARSAL, source_run_id=run_id, tags=dict(tags), model_type=MODEL_TYPE
    )
    with scratch_folder("promote") as scratch:
        (scratch / "MLmodel").write_text(_NOTE, encoding="utf-8")
        client.log_model_artifacts(model.model_id, str(scratch))
    client.finalize_logged_model(model.model_id, "READY")
    return run_id, str(model.artifact_location)


def _remove_logged(client: MlflowClient, experiment_id: str, search: RecordedSearch) -> None:
    for model in find_models(client, experiment_id, search):
        if model.tags.get(KIND) == REHEARSAL:
            delete_model(client, model, tracking_uri=search.uri)
    for run in list(find_runs(client, experiment_id, search)):
        if run.data.tags.get(KIND) == REHEARSAL:
            client.delete_run(run.info.run_id)


def _register(client: MlflowClient, name: str, mark: str, alias: str, run_id: str, source: str) -> None:
    client.search_model_versions(f"name = {quoted(name)}", max_results=1)
    if any(client.search_registered_models(f"name = {quoted(name)}", max_results=1)):
        client.set_registered_model_tag(name, KIND, "model")  # as it was made: who may, may add a version
    scratch = f"{name}-{REHEARSAL}-{mark}"
    _remove(client, scratch)  # of a process that was killed
    with _taken_back(lambda: _remove(client, scratch)):
        client.create_registered_model(scratch, tags={KIND: REHEARSAL})
        version = client.create_model_version(scratch, source=source, run_id=run_id)
        client.set_registered_model_alias(scratch, alias, str(version.version))


def _remove(client: MlflowClient, scratch: str) -> None:
    for model in client.search_registered_models(f"name = {quoted(scratch)}", max_results=1):
        if model.tags.get(KIND) == REHEARSAL:
            client.delete_registered_model(scratch)


def _require_room(artifacts: str, num_bytes: int) -> None:
    """The files are put together in the temporary folder, then copied to where MLflow has them."""
    parts = urlsplit(artifacts)
    places = [Path(tempfile.gettempdir())]
    if parts.scheme in ("", "file"):
        places.append(first_existing(Path(unquote(parts.path))))
    for place in places:
        free = shutil.disk_usage(place).free
        if free < num_bytes:
            raise TrackingError(
                f"a model of {num_bytes / 1e6:,.0f} MB is to be registered, and {place} has {free / 1e6:,.0f} MB free"
            )
