"""Names of users where MLflow reads them: every kind of letter finds its own model, or is refused in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tlsearch.core.errors import TrackingError
from tlsearch.core.types import RecordedSearch, TrialConfig
from tlsearch.tracking.mlflow_store import artifact_location, folder_name, model_name, quoted, registered_name
from tlsearch.tracking.registry.rehearsal import rehearse_promotion
from tlsearch.tracking.runs import KIND, find_runs, search_tags
from tlsearch.tracking.sink.entries import trial_start

NAMES = [
    "it's",
    'say "hi"',
    "both ' and \"",
    "a`b",
    "50%",
    "100%25",
    "a:b@c",
    "a#b?c=d",
    "-dash --and",
    "é ü 猫",
    "..",
    "'",
    "' OR name != '",
    "a;b, $(c) && d",
    "n" * 100,
    "猫" * 100,
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('names')}/mlflow.db"


def _client(store: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store, registry_uri=store)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_promoted_and_found(store: str, tmp_path: Path, name: str) -> None:
    from mlflow.store.artifact.utils.models import _parse_model_uri

    rehearse_promotion(
        RecordedSearch(uri=store, experiment=name, search_id="s", uid="0" * 32), alias="champion", num_bytes=0
    )
    client, registered = _client(store), registered_name(name)
    client.create_registered_model(registered)
    version = client.create_model_version(registered, source=f"file://{tmp_path}")
    found = client.search_model_versions(f"name = {quoted(registered)}")
    assert [(one.name, one.version) for one in found] == [(registered, version.version)]
    parsed = _parse_model_uri(f"models:/{registered}@champion")
    assert (parsed.name, parsed.alias) == (registered, "champion")
    assert {model_name(name), registered_name("a plain-name_1.2")} >= {"a plain-name_1.2"}
    location = artifact_location(store, name)
    assert location is not None
    home = Path(store.removeprefix("sqlite:///")).parent
    assert Path(location.removeprefix("file://")).parent == home / "mlartifacts", "beside its siblings, not above"
    assert len(folder_name(name).encode()) <= 100 and (folder_name(name) == name) == (
        name in ("-dash --and", "n" * 100)
    )


def test_a_rehearsal_leaves_nothing(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    rehearse_promotion(
        RecordedSearch(uri=store, experiment="it's", search_id="s", uid="0" * 32), alias="champion", num_bytes=0
    )
    client = _client(store)
    experiment = client.get_experiment_by_name("it's").experiment_id
    assert client.search_runs([experiment]) == [] and client.search_logged_models([experiment]) == []
    assert all("rehearsal" not in one.name for one in client.search_registered_models(max_results=100))
    home = Path(store.removeprefix("sqlite:///")).parent
    assert [path for path in home.rglob("*") if path.is_file() and path.name != "mlflow.db"] == []


def test_what_a_killed_rehearsal_has_left_goes_with_the_next(store: str) -> None:
    client = _client(store)
    search = RecordedSearch(uri=store, experiment="killed", search_id="s", uid="1" * 32)
    rehearse_promotion(search, alias="champion", num_bytes=0)
    experiment = client.get_experiment_by_name("killed").experiment_id
    client.create_run(experiment, tags={KIND: "rehearsal", **search_tags(search)})
    other = client.create_run(
        experiment, tags={KIND: "rehearsal", **search_tags(replace(search, uid="2" * 32))}
    ).info.run_id
    client.create_registered_model("killed-rehearsal-11111111", tags={KIND: "rehearsal"})
    rehearse_promotion(search, alias="champion", num_bytes=0)
    assert [run.info.run_id for run in client.search_runs([experiment])] == [other]
    assert client.search_registered_models("name LIKE 'killed-rehearsal%'") == []


@pytest.mark.parametrize("search_id", ["it's", 'a"b', "a`b%", "é"])
def test_runs_are_found_by_any_id(store: str, search_id: str) -> None:
    client = _client(store)
    known = client.get_experiment_by_name("ids")
    experiment = known.experiment_id if known else client.create_experiment("ids")
    search = RecordedSearch(uri=store, experiment="ids", search_id=search_id)
    run = client.create_run(experiment, tags=search_tags(search)).info.run_id
    assert [one.info.run_id for one in find_runs(client, experiment, search)] == [run]


def test_a_name_with_both_kinds_of_quotes_is_refused_in_words(store: str) -> None:
    with pytest.raises(TrackingError, match="both ' and \""):
        list(find_runs(_client(store), "0", RecordedSearch(uri=store, experiment="x", search_id="a'b\"c")))


def test_the_params_of_a_trial_are_those_that_have_an_effect() -> None:
    """A solved head takes no step, and at depth 0 nothing is adapted: MLflow has no value of what would."""
    ridge = trial_start(0, TrialConfig(backbone="resnet18", head="ridge", head_penalty=0.1), at=0.0).params
    assert {"backbone", "unfreeze_depth", "head", "head_penalty"} <= set(ridge)
    assert not {"head_lr", "optimizer", "batch_size", "weight_decay", "augmentation", "ema", "adapt"} & set(ridge)
    deep = TrialConfig(backbone="resnet18", unfreeze_depth=2, head_lr=0.01, backbone_lr=1e-4, bn_policy="train")
    params = trial_start(0, deep, at=0.0).params
    assert (params["head_lr"], params["backbone_lr"], params["adapt"]) == ("0.01", "0.0001", "none")
    assert "head_penalty" not in params
