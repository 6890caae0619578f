"""Finds the checkpoint folder of a model that is named by a folder or by an MLflow URI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.config.ensemble_meta import ENSEMBLE_FILE
from tlsearch.core.errors import StorageError, TrackingError
from tlsearch.core.secrets import remember
from tlsearch.core.trusted_hosts import guard, trust

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FILES = (META_FILE, ENSEMBLE_FILE)
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")
_HINT = "; a registered model is models:/NAME@ALIAS or models:/NAME/VERSION, and MLFLOW_TRACKING_URI names its store"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:/")


def checkpoint_folder(model: str | Path, *, tracking_uri: str | None = None) -> Path:
    """The local folder that holds the model's checkpoint.json or ensemble.json; an MLflow model is downloaded.

    Nothing of an MLflow model is executed: its checkpoint alone is read.

    Args:
        model: A checkpoint folder, a trial's folder, the folder of an MLflow model, or a URI:
            ``models:/...``, ``runs:/...`` or any that MLflow can fetch.
        tracking_uri: The MLflow store for the URI; None is MLflow's own setting.

    Raises:
        StorageError: The checkpoint does not exist, or MLflow has no such model.
        TrackingError: MLflow does not give the model.
    """
    if isinstance(model, str) and _SCHEME.match(model):
        return _checkpoint_in(_download(model, tracking_uri), model)
    return _checkpoint_in(Path(model), str(model))


def _checkpoint_in(folder: Path, name: str) -> Path:
    candidates = [folder, folder / "best"]
    if (folder / "MLmodel").is_file():
        candidates = sorted(path.parent for name in _FILES for path in folder.glob(f"artifacts/*/{name}"))
    for candidate in candidates:
        if any((candidate / name).is_file() for name in _FILES):
            return candidate
    what = "has none" if folder.is_dir() else "does not exist"
    if folder.is_file():
        from tlsearch.model.weights.file_kinds import other_kind

        what = other_kind(folder) or "is a file: weights alone know neither their classes nor their preprocessing"
    raise StorageError(f"a model is a folder with a {_FILES[0]}, a trial's folder or an MLflow model; {name} {what}")


def _download(uri: str, tracking_uri: str | None) -> Path:
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils import credentials

    guard(credentials)
    store = tracking_uri or mlflow.get_tracking_uri()
    remember(store)
    trust(store)  # the user has named it, here or for MLflow as a whole
    missing = re.fullmatch(r"sqlite:///([^?]+)", store)
    if missing and not Path(unquote(missing[1])).is_file():  # MLflow would make an empty one
        raise TrackingError(
            f"the model {uri} needs its MLflow store; there is none at {store}: set MLFLOW_TRACKING_URI"
        )
    try:
        location = _location(MlflowClient(tracking_uri=store, registry_uri=store), uri)
        repository: Any = get_artifact_repository(location, tracking_uri=store)
        return Path(repository.download_artifacts(""))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            reason = str(error).rstrip(".")
            raise StorageError(f"the model {uri} must be in the MLflow store {store}: {reason}{_HINT}") from error
        raise TrackingError(f"the model {uri} cannot be had from {store}: {error}") from error
    except Exception as error:  # each kind of store has errors of its own: no credentials, no such bucket
        raise TrackingError(f"the model {uri} cannot be had: {type(error).__name__}: {error}") from error


def _location(client: MlflowClient, uri: str) -> str:
    """Where a model's files are. MLflow's own resolution of models:/ and runs:/ asks its global store only."""
    scheme, _, name = uri.partition(":/")
    name = name.strip("/")
    if scheme == "models":
        return _model_location(client, name)
    if scheme == "runs":
        run_id, _, path = name.partition("/")
        run = client.get_run(run_id)
        for output in run.outputs.model_outputs if run.outputs else ():
            model = client.get_logged_model(output.model_id)
            if path == model.name:
                return str(model.artifact_location)
        return f"{run.info.artifact_uri}/{path}"
    return uri


def _model_location(client: MlflowClient, name: str) -> str:
    """Of ``m-<id>``, ``name@alias`` or ``name/version``."""
    registered, at, alias = name.partition("@")
    if at:
        name = f"{registered}/{client.get_model_version_by_alias(registered, alias).version}"
    registered, slash, number = name.rpartition("/")
    if not slash:
        return str(client.get_logged_model(name).artifact_location)
    source = client.get_model_version_download_uri(registered, number)
    return _location(client, source) if source.startswith(("models:/", "runs:/")) else source
