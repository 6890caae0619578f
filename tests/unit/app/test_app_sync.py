"""A search whose MLflow was away is sent again, as its study says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_search import small_search
from typer.testing import CliRunner

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.provenance import keep_evidence
from tlsearch.app.catalog.stored import forget_end, keep_end, kept_end, read_record
from tlsearch.app.searches.sync import sync_search
from tlsearch.core.errors import StorageError, TrackingError
from tlsearch.data import load_index
from tlsearch.search import holding
from tlsearch.space import load


@pytest.fixture
def entry(tmp_path: Path) -> catalog.SearchEntry:
    """A search that MLflow has never heard of."""
    entry = small_search(tmp_path)
    keep_evidence(entry, load_index(load(entry.path / "resolved.yaml")[0].data))
    return entry


def _runs(entry: catalog.SearchEntry) -> list:
    client = MlflowClient(tracking_uri=entry.tracking_uri)
    experiment = client.get_experiment_by_name(entry.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


@pytest.mark.parametrize("status", ["finished", pytest.param("failed", marks=pytest.mark.slow)])
def test_sync_makes_mlflow_say_what_the_study_says(entry: catalog.SearchEntry, status: str) -> None:
    keep_end(entry, status)  # type: ignore[arg-type]
    for _ in range(2):  # a second time changes nothing
        end = sync_search(entry)
        assert (end.num_trials, end.unsent, sorted(end.run_ids)) == (3, 0, [0, 1, 2])
        runs = _runs(entry)
        assert len(runs) == 4
        (parent,) = [run for run in runs if run.data.tags["tlsearch.kind"] == "search"]
        assert parent.info.status == {"finished": "FINISHED", "failed": "FAILED"}[status]
        client = MlflowClient(tracking_uri=entry.tracking_uri)
        names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
        assert {"space.yaml", "resolved.yaml", "data_card.json", "environment.json", "leaderboard.csv"} <= names
        for trial in read_record(entry).trials:
            points = client.get_metric_history(end.run_ids[trial.number], "val_accuracy")
            assert [(p.step, p.value) for p in points] == [(r.epoch, r.metrics["val_accuracy"]) for r in trial.reports]
        models = client.search_logged_models(experiment_ids=[parent.info.experiment_id])
        assert len(models) == 3  # tracking.keep_best


def test_a_running_search_sends_by_itself(entry: catalog.SearchEntry) -> None:
    with holding(entry.path, "resume"), pytest.raises(StorageError, match="in use by"):
        sync_search(entry)


def test_a_start_that_was_killed_is_interrupted(entry: catalog.SearchEntry) -> None:
    assert kept_end(entry) == "interrupted"
    keep_end(entry, "failed")
    assert kept_end(entry) == "failed"
    forget_end(entry)
    assert kept_end(entry) == "interrupted"


def test_the_command(entry: catalog.SearchEntry) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
    from tlsearch.cli.root import app

    done = CliRunner().invoke(app, ["sync", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"search_id": "small", "trials": 3, "runs": 3, "unsent": 0}


def test_a_store_that_cannot_be_used_is_told(entry: catalog.SearchEntry) -> None:
    from dataclasses import replace

    with pytest.raises(TrackingError):
        sync_search(replace(entry, tracking_uri="sqlite:////proc/no/such/mlflow.db"))
