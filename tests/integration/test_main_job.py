"""`tlsearch run` does its whole job: the quickstart, shortened, from the command line to a prediction.

One search of real trials serves all tests of this file; each looks at another side of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from homes import Home, need_demo_weights

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

TRIALS = 6
KEEP_BEST = 2
QUICKSTART = Path(__file__).resolve().parents[2] / "search_spaces" / "quickstart.yaml"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    need_demo_weights()
    home = Home(tmp_path_factory.mktemp("home"))
    space = home.root / "space.yaml"
    space.write_text(QUICKSTART.read_text())
    sets = ["data.image_size=64", "search.max_epochs=2", "search.scheduler.asha.reduction_factor=2"]
    sets += [f"tracking.keep_best={KEEP_BEST}", "space.unfreeze_depth=[0,1]"]
    options = [part for value in sets for part in ("--set", value)]
    home.run("run", "space.yaml", "--trials", str(TRIALS), "--name", "short", *options)
    yield home


@pytest.fixture(scope="module")
def results(home: Home) -> Mapping[str, Any]:
    return json.loads(home.run("results", "short", "--json"))


@pytest.fixture(scope="module")
def runs(home: Home) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def test_results_have_the_published_shape(results: Mapping[str, Any]) -> None:
    assert set(results) == {
        "search_id",
        "experiment",
        "metric",
        "mode",
        "best",
        "trials",
        "state",
        "better_than_default",
        "screen",
        "front",
        "plateau",
    }
    assert results["state"] == "finished"
    keys = {"trial", "state", "params", "best_value", "best_epoch", "epochs_run", "mlflow_run_id", "reason"}
    assert all(set(trial) == keys for trial in results["trials"])
    assert sorted(trial["trial"] for trial in results["trials"]) == list(range(TRIALS))
    assert results["best"] == results["trials"][0]["trial"]
    assert results["trials"][0]["best_value"] > 0.85
    for trial in results["trials"]:
        assert ("backbone_lr" in trial["params"]) == (trial["params"]["unfreeze_depth"] > 0)


def test_mlflow_agrees_with_results(results: Mapping[str, Any], runs: list[Any]) -> None:
    parents = [run for run in runs if run.data.tags.get("tlsearch.kind") == "search"]
    children = [run for run in runs if run.data.tags.get("tlsearch.kind") == "trial"]
    assert len(parents) == 1 and len(children) == TRIALS and len(runs) == TRIALS + 1
    by_number = {int(run.data.tags["tlsearch.trial"]): run for run in children}
    for trial in results["trials"]:
        run = by_number[trial["trial"]]
        assert run.info.run_id == trial["mlflow_run_id"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert run.data.tags["tlsearch.state"] == trial["state"]
        assert run.data.metrics["best_val_accuracy"] == pytest.approx(trial["best_value"], abs=1e-12)
        assert run.data.metrics["best_epoch"] == trial["best_epoch"]
        assert run.data.params["unfreeze_depth"] == str(trial["params"]["unfreeze_depth"])


def test_mlflow_has_one_point_per_metric_and_epoch(home: Home, results: Mapping[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    for trial in results["trials"]:
        for metric in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "epoch_seconds"):
            points = client.get_metric_history(trial["mlflow_run_id"], metric)
            first = 0 if metric.startswith("val_") else 1  # 0: the solved head, before the first step
            assert [point.step for point in points] == list(range(first, trial["epochs_run"] + 1))
        best = max(point.value for point in client.get_metric_history(trial["mlflow_run_id"], "val_accuracy"))
        assert best == pytest.approx(trial["best_value"], abs=1e-12)


def test_the_study_agrees_with_results(home: Home, results: Mapping[str, Any]) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = home.root / "tlsearch_runs" / "short" / "study.journal"
    storage = JournalStorage(JournalFileBackend(str(journal)))
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    by_number = {trial["trial"]: trial for trial in results["trials"]}
    assert [trial.number for trial in study.trials] == list(range(TRIALS))
    for trial in study.trials:
        row = by_number[trial.number]
        assert STATES[trial.state.name] == row["state"]
        assert sorted(trial.intermediate_values) == list(range(1, row["epochs_run"] + 1))
        assert trial.user_attrs["best_value"] == pytest.approx(row["best_value"], abs=1e-12)
        if row["best_epoch"] > 0:  # else no epoch was better than the solved head
            assert trial.intermediate_values[row["best_epoch"]] == max(trial.intermediate_values.values())
        assert max(trial.intermediate_values.values()) <= row["best_value"]
        assert (row["state"] == "complete") == (row["epochs_run"] == 2)


def test_some_trials_are_stopped_early(results: Mapping[str, Any]) -> None:
    assert Counter(trial["reason"] for trial in results["trials"])["asha"] >= 1


def test_keep_best_models_and_no_more(home: Home, results: Mapping[str, Any], runs: list[Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    models = client.search_logged_models(experiment_ids=[runs[0].info.experiment_id])
    kept = {model.source_run_id for model in models}
    assert len(models) == KEEP_BEST
    assert kept == {trial["mlflow_run_id"] for trial in results["trials"][:KEEP_BEST]}
    weights = list(home.root.rglob("mlartifacts/**/weights-*.safetensors"))
    assert len(weights) == KEEP_BEST  # the files of an evicted model are gone too
    assert not [p for p in home.root.rglob("mlartifacts/**/*") if p.suffix in {".pkl", ".pickle", ".pt", ".pth"}]


def test_the_parent_run_holds_the_evidence(home: Home, runs: list[Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    (parent,) = [run for run in runs if run.data.tags.get("tlsearch.kind") == "search"]
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {
        "space.yaml",
        "resolved.yaml",
        "data_card.json",
        "environment.json",
        "leaderboard.csv",
        "report.html",
        "plots",
    } <= names


def test_a_finished_search_is_extended(home: Home, results: Mapping[str, Any], runs: list[Any]) -> None:
    """Last in the file: it adds a trial to the search."""
    home.run("resume", "short", "--trials", "+1", "--json")
    after = json.loads(home.run("results", "--json"))
    assert len(after["trials"]) == TRIALS + 1
    before = {trial["trial"]: trial for trial in results["trials"]}
    assert {t["trial"]: t for t in after["trials"] if t["trial"] < TRIALS} == before
