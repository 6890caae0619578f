"""The best trials' checkpoints as MLflow models: written from code, without a pickled object."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.config.ensemble_meta import networks_json
from tlsearch.config.model_copies import whole_model
from tlsearch.core import PACKAGE
from tlsearch.core.codec import read_json
from tlsearch.core.crash import crash_point
from tlsearch.core.label_tasks import DEFAULT_TASK, TASKS
from tlsearch.core.types import RecordedSearch
from tlsearch.core.user_folders import scratch_folder
from tlsearch.tracking.mlflow_store import model_name, quoted
from tlsearch.tracking.runs import (
    KIND,
    SEARCH_UID,
    TRIAL,
    KnownRun,
    Point,
    TrackedSearch,
    pages,
    search_filter,
    search_tags,
    trial_name,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

logger = logging.getLogger(__name__)

MODEL_TYPE = "image-classifier"
ARTIFACT = "checkpoint"  # the name under which the served code finds the checkpoint folder
TEMPERATURE = "temperature"  # in checkpoint.json: all that a calibration changes
MODEL = "model"  # the kind of a kept model
VERSIONS = "mlflow.modelVersions"  # by this tag of a logged model the UI knows that it is registered
_REQUIREMENTS = ("torch", "torchvision", "numpy", "pillow", "safetensors", "filelock", "scikit-learn", "mlflow")
# A white PNG of 8 x 8 pixels, base64: what a caller sends.
_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAAC0lEQVR4nGP4z4AfAgAoyAf5HuqNvQAAAABJRU5ErkJggg=="
_PAGE = 100


class ModelShelf:
    """The logged models of a search, one for each kept trial; found by their tags at construction.

    Models that a crash left half uploaded are deleted then, with their files.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, search: TrackedSearch) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._search = search
        self.models: dict[int, LoggedModel] = {}
        self._shown: set[int] = set()  # models that are known to stand on their runs' pages
        for model in self._find():
            number = int(model.tags[TRIAL])
            if number in self.models or str(model.status) != "READY":
                self._delete(model)
            else:
                self.models[number] = model

    def keep(self, number: int, run: KnownRun, checkpoint: Path) -> Point | None:
        """Logs a checkpoint folder as the model of a trial, with the params of its run.

        Returns:
            The value that the checkpoint was kept for, for ``show``; None where the trial's model is
            already there and shown, or the folder is gone.
        """
        model = self.models.get(number)
        if model is not None and self._is_shown(number, run.run_id):
            return None
        if not (checkpoint / META_FILE).is_file():
            if model is None:  # better trials came while this waited: its drop follows
                logger.info("trial %d has no checkpoint in %s any more: no model is logged", number, checkpoint)
            return None
        meta = read_json(checkpoint / META_FILE)
        if model is None:
            model = self.models[number] = self._log(number, run, checkpoint, meta)
            crash_point("kept_model_ready")
        return Point(key=meta["metric"], value=meta["value"], time_ms=model.creation_timestamp, step=meta["epoch"])

    def _log(self, number: int, run: KnownRun, checkpoint: Path, meta: Mapping[str, Any]) -> LoggedModel:
        own = {key: str(meta[key]) for key in ("backbone", "weights_id", "image_size", "epoch") if key in meta}
        model = self._client.create_logged_model(
            self._experiment_id,
            name=model_name(trial_name(self._search.search_id, number)),
            source_run_id=run.run_id,
            tags={KIND: MODEL, **search_tags(self._search), TRIAL: str(number)},
            params=run.params | own,
            model_type=MODEL_TYPE,
        )
        crash_point("kept_model_made")
        with scratch_folder("model") as scratch:
            folder = scratch / "model"
            whole = whole_model(checkpoint, scratch / checkpoint.name)
            write_model(folder, model, run_id=run.run_id, checkpoint=whole, served_code=self._search.served_code)
            self._client.log_model_artifacts(model.model_id, str(folder))
        crash_point("kept_model_files")
        return self._client.finalize_logged_model(model.model_id, "READY")

    def _is_shown(self, number: int, run_id: str) -> bool:
        """Whether the run names the model; a crash may have come between, and a second naming would be one too many."""
        if number not in self._shown and names_model(self._client, run_id, self.models[number].model_id):
            self._shown.add(number)
        return number in self._shown

    def show(self, number: int, run_id: str, points: Sequence[Point], *, step: int) -> None:
        """Shows the model and its values on the run's page and in the experiment's list of models.

        Args:
            points: Of the model's epoch, the same as the run's, which holds each once.
            step: The epoch.
        """
        from mlflow.entities import LoggedModelOutput, Metric

        model_id = self.models[number].model_id
        # The values first: a model that the run names is complete.
        metrics = [Metric(p.key, p.value, p.time_ms, p.step, model_id=model_id, run_id=run_id) for p in points]
        self._client.log_batch(run_id, metrics=metrics)
        self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=step)])
        self._shown.add(number)

    def name_in(self, run_id: str, model_id: str) -> None:
        """Has a run name a model, unless it does."""
        from mlflow.entities import LoggedModelOutput

        if not names_model(self._client, run_id, model_id):
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])

    def drop(self, number: int) -> None:
        """Deletes the model of a trial with its files, if there is one; a registered model stays."""
        if number in self.models:
            if not is_registered(self._client, self.models[number]):
                self._delete(self.models[number])
            del self.models[number]
            self._shown.discard(number)

    def _find(self) -> list[LoggedModel]:
        found = find_models(self._client, self._experiment_id, self._search)
        return [model for model in found if model.tags.get(TRIAL, "").isdecimal()]

    def _delete(self, model: LoggedModel) -> None:
        delete_model(self._client, model, tracking_uri=self._search.uri)


def names_model(client: MlflowClient, run_id: str, model_id: str) -> bool:
    """Whether a run names a model among its outputs."""
    outputs = client.get_run(run_id).outputs
    return outputs is not None and any(one.model_id == model_id for one in outputs.model_outputs)


def is_registered(client: MlflowClient, model: LoggedModel) -> bool:
    """Whether a version in the registry has the files of a logged model."""
    sources = (model.artifact_location, f"models:/{model.model_id}")
    return any(client.search_model_versions(f"source_path = {quoted(source)}", max_results=1) for source in sources)


def logged_checkpoint(model: LoggedModel, *, tracking_uri: str) -> tuple[str, dict[str, Any] | None]:
    """Where in a logged model its checkpoint folder lies, and what its file says; None where that cannot be read."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository: Any = get_artifact_repository(model.artifact_location, tracking_uri=tracking_uri)
    path = next((str(one.path) for one in repository.list_artifacts("artifacts") if one.is_dir), "")
    if not path:
        return "", None
    with scratch_folder("model") as scratch:
        try:
            local = repository.download_artifacts(f"{path}/{META_FILE}", dst_path=str(scratch))
            return path, read_json(Path(local))
        except (OSError, ValueError):
            return path, None


def find_models(client: MlflowClient, experiment_id: str, search: RecordedSearch) -> list[LoggedModel]:
    """All logged models of a search, oldest first; see ``find_runs``."""
    wanted = search_filter(search)
    found = pages(
        lambda token: client.search_logged_models(
            [experiment_id], filter_string=wanted, max_results=_PAGE, page_token=token
        )
    )
    own = (model for model in found if model.tags.get(SEARCH_UID, "") == search.uid)
    return sorted(own, key=lambda model: model.creation_timestamp)


def write_model(folder: Path, model: LoggedModel, *, run_id: str, checkpoint: Path, served_code: Path) -> None:
    """Writes the files of an MLflow model around a checkpoint: signature, example, requirements, code; no pickle."""
    from mlflow import pyfunc
    from mlflow.models import Model

    networks = networks_json(checkpoint)
    several = TASKS[str(networks[0].get("task", DEFAULT_TASK))].several  # labels of an image
    description = Model(
        artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
    )
    pyfunc.save_model(
        path=str(folder),
        mlflow_model=description,
        python_model=str(served_code),
        artifacts={ARTIFACT: str(checkpoint)},
        signature=model_signature(several=several),
        input_example=[_EXAMPLE],
        pip_requirements=requirements([str(one["backbone"]) for one in networks]),
        code_paths=[str(PACKAGE)],
    )


def delete_model(client: MlflowClient, model: LoggedModel, *, tracking_uri: str) -> None:
    """Deletes a logged model with its files.

    Files first: a crash in between leaves the record, by which the next start finds it again.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    location = model.artifact_location
    if location.startswith("file:"):  # MLflow (3.17) decodes the address twice, and would leave `it%27s` there
        folder = Path(unquote(urlparse(location).path))
        if folder.exists():
            shutil.rmtree(folder)
        _remove_empty(folder.parent)
    else:
        repository: Any = get_artifact_repository(location, tracking_uri=tracking_uri)
        repository.delete_artifacts()
    client.delete_logged_model(model.model_id)


def requirements(backbones: Sequence[str]) -> list[str]:
    """Pinned requirements of a served model, without the build's local suffix (``+cpu``)."""
    names = [*_REQUIREMENTS, *(["timm"] if any(one.startswith("timm/") for one in backbones) else [])]
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


def model_signature(*, several: bool = False) -> ModelSignature:
    """One unnamed string column (base64) in; label, score and the best few of each image out.

    Args:
        several: The labels of each image are in the answer, too: it may have any number of them.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import Array, DataType, Object, Property

    pair: Sequence[Property] = [Property("label", DataType.string), Property("score", DataType.double)]
    answer: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "score"),
        ColSpec(Array(Object(list(pair))), "top"),
        *([ColSpec(Array(Object(list(pair))), "labels")] if several else []),
    ]
    return ModelSignature(inputs=Schema([ColSpec(DataType.string)]), outputs=Schema(answer))


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # not empty, or gone
