"""The search's own run and its models as a user of MLflow meets them: description, data, best model, names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tlsearch.core.types import DataSetFacts, Decision, EndReason, EpochReport, TrialConfig, TrialOutcome
from tlsearch.tracking import MlflowTracker, TrackedSearch
from tlsearch.tracking.registry.logged_models import model_name
from tlsearch.tracking.sink.search_run import dataset_input, has_block, with_block

SERVED = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Stub(PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        return ["stub"] * len(model_input)

set_model(Stub())
"""
CONFIG = TrialConfig(backbone="resnet18", head_lr=0.01)
DATA = DataSetFacts(
    name="emoji",
    digest="f5434d5b554ae0df44d6237f26114dad",
    source="/images/emoji",
    source_type="folder",
    images={"train": 9, "val": 3},
    num_classes=3,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def _tracker(uri: str, folder: Path, name: str, *, experiment: str = "") -> MlflowTracker:
    served = folder / "stub.py"
    served.write_text(SERVED)
    return MlflowTracker(
        TrackedSearch(uri=uri, experiment=experiment or name, search_id=name, metric="val_accuracy", served_code=served)
    )


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _trial(tracker: MlflowTracker, folder: Path, number: int, value: float) -> None:
    """A trial of two epochs whose model is kept, of the first epoch."""
    tracker.trial_started(number, CONFIG)
    for epoch, share in ((1, 1.0), (2, 0.5)):
        metrics = {"val_accuracy": value * share, "val_loss": 2 - value, "epoch_seconds": 3.0, "system/cpu": 0.5}
        report = EpochReport(epoch=epoch, metrics=metrics, timestamp=1000.0 + 10 * number + epoch)
        tracker.trial_reported(number, report, Decision.CONTINUE)
    tracker.trial_ended(
        number,
        TrialOutcome(reason=EndReason.COMPLETED, epochs_run=2, best_value=value, best_epoch=1),
    )
    checkpoint = folder / str(number) / "best"
    checkpoint.mkdir(parents=True, exist_ok=True)
    meta = {"backbone": "resnet18", "weights_id": "w", "epoch": 1, "metric": "val_accuracy", "value": value}
    (checkpoint / "checkpoint.json").write_text(json.dumps(meta))
    (checkpoint / "weights-1.safetensors").write_bytes(b"weights")
    tracker.keep_model(number, checkpoint)


def _runs(client: Any, name: str) -> tuple[Any, dict[int, Any]]:
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    parent = next(run for run in runs if run.data.tags["tlsearch.kind"] == "search")
    trials = {int(r.data.tags["tlsearch.trial"]): r for r in runs if r.data.tags["tlsearch.kind"] == "trial"}
    return parent, trials


def test_a_search_run_leads_to_its_best_model(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "whole")
    tracker.search_started({}, {}, description="- **search** `whole`", data=DATA)
    for number, value in enumerate((0.5, 0.8, 0.6)):
        _trial(tracker, tmp_path, number, value)
    tracker.search_ended("finished", {})
    assert tracker.close() == 0
    client = _client(store)
    parent, trials = _runs(client, "whole")
    model = {one.name: one for one in client.search_logged_models([parent.info.experiment_id])}["whole trial 1"]
    assert parent.data.tags["tlsearch.best_model"] == f"models:/{model.model_id}"
    assert [one.model_id for one in parent.outputs.model_outputs] == [model.model_id]
    assert (parent.data.metrics["best_val_accuracy"], parent.data.metrics["best_trial"]) == (0.8, 1.0)
    assert [p.value for p in client.get_metric_history(parent.info.run_id, "best_val_accuracy")] == [0.5, 0.8, 0.8]
    note = parent.data.tags["mlflow.note.content"]
    page = f"#/experiments/{parent.info.experiment_id}"
    assert f"[trial 1]({page}/runs/{trials[1].info.run_id})" in note and f"{page}/models/{model.model_id}" in note
    assert "- **search** `whole`" in note


def test_a_kept_model_has_the_params_and_the_values_of_its_epoch(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "values")
    tracker.search_started({}, {})
    _trial(tracker, tmp_path, 7, 0.5)
    tracker.close()
    client = _client(store)
    (model,) = client.search_logged_models([client.get_experiment_by_name("values").experiment_id])
    assert {one.key: (one.value, one.step) for one in model.metrics} == {
        "val_accuracy": (0.5, 1),
        "val_loss": (1.5, 1),
    }
    assert (model.params["head_lr"], model.params["weights_id"], model.params["epoch"]) == ("0.01", "w", "1")


def test_the_model_of_an_earlier_process_has_them_too(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "later")
    tracker.search_started({}, {})
    _trial(tracker, tmp_path, 0, 0.5)
    tracker.drop_model(0)  # in the same go: nothing is uploaded
    tracker.close()
    again = _tracker(store, tmp_path, "later")
    again.search_started({}, {})
    again.keep_model(0, tmp_path / "0" / "best")
    again.close()
    client = _client(store)
    (model,) = client.search_logged_models([client.get_experiment_by_name("later").experiment_id])
    assert {one.key: one.value for one in model.metrics} == {"val_accuracy": 0.5, "val_loss": 1.5}
    for key in ("val_accuracy", "val_loss"):
        assert len(client.get_metric_history(model.source_run_id, key)) == 2


def test_two_searches_of_an_experiment_can_be_told_apart(store: str, tmp_path: Path) -> None:
    for name in ("first", "second.b"):
        tracker = _tracker(store, tmp_path, name, experiment="both")
        tracker.search_started({}, {})
        _trial(tracker, tmp_path, 3, 0.5)
        tracker.close()
    client = _client(store)
    number = client.get_experiment_by_name("both").experiment_id
    names = {run.info.run_name for run in client.search_runs([number])}
    assert names == {"first", "first trial 3", "second.b", "second.b trial 3"}
    assert {model.name for model in client.search_logged_models([number])} == {"first trial 3", "second-b trial 3"}
    assert model_name("a/b:c.d%e\"f'g") == "a-b-c-d-e-f-g"


def test_the_data_are_an_input_of_the_search_once(store: str, tmp_path: Path) -> None:
    for _ in range(2):
        tracker = _tracker(store, tmp_path, "data")
        tracker.search_started({}, {}, data=DATA)
        tracker.close()
    (found,) = _runs(_client(store), "data")[0].inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.source_type) == (
        "emoji",
        "f5434d5b554ae0df",
        "local",
    )
    assert json.loads(found.dataset.source) == {"uri": "/images/emoji"}
    assert json.loads(found.dataset.profile) == {"num_rows": 12, "num_classes": 3, "num_train": 9, "num_val": 3}


@pytest.mark.parametrize(
    ("kind", "source", "shown"),
    [
        ("folder", "s3://bucket/x", ("s3", {"uri": "s3://bucket/x"})),
        ("manifest", "https://host/x.csv", ("http", {"url": "https://host/x.csv"})),
        ("huggingface", "beans", ("hugging_face", {"path": "beans"})),
        ("huggingface", "/local/beans", ("local", {"uri": "/local/beans"})),
        ("digits", "digits", ("local", {"uri": "digits"})),
    ],
)
def test_the_source_of_the_data_is_of_a_kind_that_mlflow_knows(kind: str, source: str, shown: Any) -> None:
    facts = DataSetFacts(name="x", digest="0" * 64, source=source, source_type=kind, images={}, num_classes=0)
    found = dataset_input(facts).dataset
    assert (found.source_type, json.loads(found.source)) == shown


def test_an_experiment_is_one_of_training_runs(store: str, tmp_path: Path) -> None:
    client = _client(store)
    client.create_experiment("older")
    client.create_experiment("chosen", tags={"mlflow.experimentKind": "classification"})
    for name, kind in (("new", "custom_model_development"), ("older", "custom_model_development")):
        tracker = _tracker(store, tmp_path, name)
        tracker.search_started({}, {})
        tracker.close()
        assert client.get_experiment_by_name(name).tags["mlflow.experimentKind"] == kind
    tracker = _tracker(store, tmp_path, "chosen")
    tracker.search_started({}, {})
    tracker.close()
    assert client.get_experiment_by_name("chosen").tags["mlflow.experimentKind"] == "classification"


def test_a_persons_own_words_in_the_description_stay(store: str, tmp_path: Path) -> None:
    client = _client(store)
    for text in ("first", "second"):
        tracker = _tracker(store, tmp_path, "note")
        tracker.search_started({}, {}, description=text)
        tracker.search_ended("finished", {})
        tracker.close()
        parent = _runs(client, "note")[0]
        note = parent.data.tags["mlflow.note.content"]
        assert text in note
        if text == "first":
            client.set_tag(parent.info.run_id, "mlflow.note.content", f"Mine.\n\n{note}\n\nMine too.")
    assert note.startswith("Mine.\n\n") and note.endswith("\n\nMine too.") and "first" not in note


def test_a_description_that_is_all_a_persons_is_left_alone() -> None:
    assert with_block("Mine alone.", "ours") == "Mine alone."
    assert has_block(with_block("", "ours")) and has_block(with_block(" \n", "ours"))
    assert with_block(with_block("", "old"), "new") == with_block("", "new")


def test_the_models_of_registered_versions_outlive_the_best(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "registered")
    tracker.search_started({}, {})
    _trial(tracker, tmp_path, 0, 0.5)
    _trial(tracker, tmp_path, 1, 0.6)
    _trial(tracker, tmp_path, 2, 0.7)
    assert tracker.flush()
    client = _client(store)
    number = client.get_experiment_by_name("registered").experiment_id
    models = {int(one.tags["tlsearch.trial"]): one for one in client.search_logged_models([number])}
    client.create_registered_model("kept")
    client.create_model_version(
        "kept", source=models[0].artifact_location, model_id=models[0].model_id, run_id="x" * 32
    )
    for trial in (0, 1):
        tracker.drop_model(trial)
    tracker.close()
    left = client.search_logged_models([number])
    assert {int(one.tags["tlsearch.trial"]) for one in left} == {0, 2}
    assert (Path(models[0].artifact_location.removeprefix("file://")) / "MLmodel").exists()
    again = _tracker(store, tmp_path, "registered")
    again.search_started({}, {})
    again.drop_model(0)  # as every resume does
    again.close()
    assert len(client.search_logged_models([number])) == 2
