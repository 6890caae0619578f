"""Which search an MLflow model comes from, by the tags that tlsearch gave it."""

from __future__ import annotations

from dataclasses import dataclass

from tlsearch.tracking.runs import SEARCH_ID, SEARCH_UID


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A search's ID, and its unique id where it has one."""

    search_id: str
    uid: str


def model_origin(uri: str) -> Origin | None:
    """The search of ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/m-ID`` or ``runs:/RUN/...``.

    None where MLflow's own store does not know it, or no search of tlsearch made it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    scheme, _, name = uri.partition(":/")
    name = name.strip("/")
    client = MlflowClient()
    try:
        if scheme == "runs":
            return _origin(client.get_run(name.partition("/")[0]).data.tags)
        if scheme != "models":
            return None
        registered, at, alias = name.partition("@")
        if at:
            return _origin(client.get_model_version_by_alias(registered, alias).tags)
        registered, slash, version = name.rpartition("/")
        if slash:
            return _origin(client.get_model_version(registered, version).tags)
        return _origin(client.get_logged_model(name).tags)
    except MlflowException:
        return None


def _origin(tags: dict[str, str]) -> Origin | None:
    if SEARCH_ID not in tags:
        return None
    return Origin(search_id=tags[SEARCH_ID], uid=tags.get(SEARCH_UID, ""))
