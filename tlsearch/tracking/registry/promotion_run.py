"""A promotion and its run in MLflow: what was tested of which model, and the model, logged or found."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.config.checkpoint_meta import META_FILE
from tlsearch.core.codec import read_json
from tlsearch.core.crash import crash_point
from tlsearch.core.types import RecordedSearch
from tlsearch.core.user_folders import scratch_folder
from tlsearch.tracking.mlflow_store import model_name, registered_name
from tlsearch.tracking.registry.logged_models import (
    MODEL,
    MODEL_TYPE,
    TEMPERATURE,
    find_models,
    is_registered,
    logged_checkpoint,
    names_model,
    write_model,
)
from tlsearch.tracking.runs import KIND, PARENT, TRIAL, cut, find_runs, search_tags, trial_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

PROMOTION = "promotion"
CONTENT = "tlsearch.content"
LOGGED_MODEL = "tlsearch.logged_model"
CARD = "README.md"

_MAX_TAG = 5000


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What is to be registered.

    Attributes:
        search: The search that is promoted from; its run holds the promotion's.
        trained_in: The search whose trial it is: that one, or the one that trained its best again.
        trial: The trial's number there.
        kind: ``ensemble`` or ``soup`` of a combination of trials, of which ``trial`` is the best single one.
        checkpoint: A checkpoint folder; it is copied.
        model_digest: Stands for the checkpoint's weights.
        alias: What is to point to the new version.
        tags: Of version and run.
        params: Of the run.
        metrics: Of the run.
        card: Markdown.
        files: Texts by file name, for the run.
    """

    search: RecordedSearch
    trained_in: RecordedSearch
    trial: int
    checkpoint: Path
    model_digest: str
    alias: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    card: str
    files: Mapping[str, str]
    kind: str = ""

    @property
    def name(self) -> str:
        """The registered model's."""
        return registered_name(self.search.experiment)

    @property
    def content(self) -> str:
        """Stands for all that the version holds: the same again is the same version."""
        text = json.dumps([self.model_digest, dict(self.tags), self.card], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def make_run(client: MlflowClient, experiment_id: str, promotion: Promotion) -> str:
    """The promotion's own run, nested in the search's; one that was begun for the same is taken up."""
    from mlflow.entities import Metric, Param, RunTag

    runs = list(find_runs(client, experiment_id, promotion.search))
    run = next((one for one in runs if one.data.tags.get(CONTENT) == promotion.content), None)
    if run is None:
        above = next((one for one in runs if one.data.tags.get(KIND) == "search"), None)
        tags = {KIND: PROMOTION, **search_tags(promotion.search), CONTENT: promotion.content, **promotion.tags}
        tags |= {PARENT: above.info.run_id} if above else {}
        name = f"promote {promotion.search.search_id}"
        run = client.create_run(experiment_id, tags=tags, run_name=name)
    run_id = str(run.info.run_id)
    now_ms = int(time.time() * 1000)
    known = set(run.data.metrics)
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now_ms, 0) for key, value in promotion.metrics.items() if key not in known],
        params=[Param(key, value) for key, value in promotion.params.items()],
        tags=[RunTag(key, cut(value, _MAX_TAG)) for key, value in promotion.tags.items()],
    )
    for name, text in {CARD: promotion.card, **promotion.files}.items():
        client.log_text(run_id, text, name)
    return run_id


def log_model(
    client: MlflowClient, experiment_id: str, run_id: str, promotion: Promotion, served_code: Path
) -> LoggedModel:
    """A model of its own, made of the checkpoint, with its card."""
    model = client.create_logged_model(
        experiment_id,
        name=model_name(f"{_model_title(promotion)} promoted"),
        source_run_id=run_id,
        tags={KIND: PROMOTION, **search_tags(promotion.search), CONTENT: promotion.content},
        params=dict(promotion.params),
        model_type=MODEL_TYPE,
    )
    crash_point("model_made")
    with scratch_folder("model") as scratch:
        folder = scratch / "model"
        write_model(folder, model, run_id=run_id, checkpoint=promotion.checkpoint, served_code=served_code)
        (folder / CARD).write_text(promotion.card, encoding="utf-8")
        client.log_model_artifacts(model.model_id, str(folder))
    return client.finalize_logged_model(model.model_id, "READY")


def _model_title(promotion: Promotion) -> str:
    if promotion.kind:
        return f"{promotion.trained_in.search_id} {promotion.kind}"
    return trial_name(promotion.trained_in.search_id, promotion.trial)


def kept_model(client: MlflowClient, experiment_id: str, promotion: Promotion) -> LoggedModel | None:
    """The model that the search has kept of the trial, with the temperature and the card; None where it is another.

    The files of a registered model stay as they are: it serves as it is, or another one is logged.
    """
    if promotion.kind:
        return None
    wanted = read_json(promotion.checkpoint / META_FILE)
    for model in find_models(client, experiment_id, promotion.trained_in):
        if model.tags.get(KIND) != MODEL or model.tags.get(TRIAL) != str(promotion.trial):
            continue
        path, found = logged_checkpoint(model, tracking_uri=promotion.search.uri)
        if found == wanted:
            return model
        resumed = model.tags.get(CONTENT) == promotion.content  # a death may have left its checkpoint.json half written
        same = found is not None and {**found, TEMPERATURE: wanted.get(TEMPERATURE)} == wanted
        if not (same or (resumed and path)) or is_registered(client, model):
            continue
        client.set_logged_model_tags(model.model_id, {CONTENT: promotion.content})
        with scratch_folder("model") as scratch:
            (scratch / path).mkdir(parents=True)
            (scratch / path / META_FILE).write_bytes((promotion.checkpoint / META_FILE).read_bytes())
            (scratch / CARD).write_text(promotion.card, encoding="utf-8")
            client.log_model_artifacts(model.model_id, str(scratch))
        return model
    return None


def show_model(client: MlflowClient, run_id: str, model: LoggedModel, promotion: Promotion) -> None:
    """Shows the model on the run's page, and the promotion's figures on the model's."""
    from mlflow.entities import LoggedModelOutput, Metric

    if not names_model(client, run_id, model.model_id):
        points = (point for key in promotion.metrics for point in client.get_metric_history(run_id, key))
        client.log_batch(
            run_id,
            metrics=[
                Metric(p.key, p.value, p.timestamp, p.step, model_id=model.model_id, run_id=run_id) for p in points
            ],
        )
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
