"""The MLflow registry: a model becomes a version, and an alias points to it; in this order, so that a death on the
way leaves the old alias or the complete new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.core.codec import parse_json
from tlsearch.core.crash import crash_point
from tlsearch.tracking.mlflow_store import connect, errors_told, open_experiment, quoted
from tlsearch.tracking.registry.logged_models import (
    VERSIONS,
    delete_model,
    find_models,
)
from tlsearch.tracking.registry.promotion_run import (
    CONTENT,
    LOGGED_MODEL,
    PROMOTION,
    Promotion,
    kept_model,
    log_model,
    make_run,
    show_model,
)
from tlsearch.tracking.runs import KIND, cut, search_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS = "champion", "previous"

_MAX_DESCRIPTION = 5000


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """A registered version; ``previous`` is the one that the alias pointed to before, if any."""

    name: str
    version: str
    alias: str
    run_id: str
    previous: str | None


def register_model(promotion: Promotion, *, served_code: Path) -> Promoted:
    """Registers a checkpoint's MLflow model and sets the alias, last of all.

    The model that the search has kept of the trial is registered where its weights are the same; else one is logged.
    Called again after a death it takes up what is complete and removes what is not.

    Raises:
        TrackingError: MLflow cannot be reached, or refuses.
    """
    uri = promotion.search.uri
    with errors_told(uri):
        client = connect(uri)
        experiment_id = open_experiment(client, promotion.search.experiment, uri)
        version = _find_version(client, promotion)
        if version is None:
            _clean_up(client, experiment_id, promotion)
            run_id = make_run(client, experiment_id, promotion)
            crash_point("run_made")
            model = kept_model(client, experiment_id, promotion)
            if model is None:
                model = log_model(client, experiment_id, run_id, promotion, served_code)
            show_model(client, run_id, model, promotion)
            crash_point("model_logged")
            version = _make_version(client, run_id, model, promotion)
            client.set_terminated(run_id)
        crash_point("version_made")
        _name_version(client, experiment_id, version, promotion)
        return _set_alias(client, version, promotion)


def _find_version(client: MlflowClient, promotion: Promotion) -> ModelVersion | None:
    """The version that an earlier call has made of just this."""
    found = client.search_model_versions(f"name = {quoted(promotion.name)}")
    return next((one for one in found if one.tags.get(CONTENT) == promotion.content), None)


def _clean_up(client: MlflowClient, experiment_id: str, promotion: Promotion) -> None:
    """Deletes models that a death left without a version."""
    sources = {one.source for one in client.search_model_versions(f"name = {quoted(promotion.name)}")}
    for model in find_models(client, experiment_id, promotion.search):
        if model.tags.get(KIND) == PROMOTION and model.artifact_location not in sources:
            delete_model(client, model, tracking_uri=promotion.search.uri)


def _make_version(client: MlflowClient, run_id: str, model: LoggedModel, promotion: Promotion) -> ModelVersion:
    """One call makes the version with all that belongs to it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(promotion.name, tags={KIND: "model"})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # The files' own address: MLflow would look for models:/m-... in its global store, whichever that is.
    return client.create_model_version(
        promotion.name,
        source=model.artifact_location,
        run_id=run_id,
        tags={
            **promotion.tags,
            **search_tags(promotion.search),
            CONTENT: promotion.content,
            LOGGED_MODEL: f"models:/{model.model_id}",
        },
        description=cut(promotion.card, _MAX_DESCRIPTION),
        model_id=model.model_id,
    )


def _name_version(client: MlflowClient, experiment_id: str, version: ModelVersion, promotion: Promotion) -> None:
    """Has the logged model say which version it is, as MLflow's own ``register_model`` does: its UI shows that."""
    searches = {promotion.search, promotion.trained_in}
    models = (model for search in searches for model in find_models(client, experiment_id, search))
    model = next((one for one in models if one.artifact_location == version.source), None)
    if model is None:
        return
    known = parse_json(model.tags.get(VERSIONS, "[]"), f"the tag {VERSIONS} of the model {model.model_id}", list)
    if not any((one["name"], str(one["version"])) == (version.name, str(version.version)) for one in known):
        new = {"name": version.name, "version": int(version.version)}
        client.set_logged_model_tags(model.model_id, {VERSIONS: json.dumps([*known, new])})


def _set_alias(client: MlflowClient, version: ModelVersion, promotion: Promotion) -> Promoted:
    known = client.get_registered_model(promotion.name).aliases
    aliases = {alias: str(number) for alias, number in known.items()}
    new, keep = str(version.version), previous_of(promotion.alias)
    old, previous = aliases.get(promotion.alias), aliases.get(keep)
    if old != new:
        if old is not None:
            client.set_registered_model_alias(promotion.name, keep, old)
            crash_point("previous_set")
        client.set_registered_model_alias(promotion.name, promotion.alias, new)
        crash_point("alias_set")
        previous = old
    return Promoted(
        name=promotion.name, version=new, alias=promotion.alias, run_id=str(version.run_id), previous=previous
    )


def previous_of(alias: str) -> str:
    """The alias that keeps what another one pointed to: ``previous`` of the champion, else ``<alias>-previous``."""
    return PREVIOUS if alias == CHAMPION else f"{alias}-{PREVIOUS}"
