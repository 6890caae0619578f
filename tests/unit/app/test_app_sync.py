"""A search whose MLflow was away is sent again, as its study says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from small_search import small_search
from typer.testing import CliRunner

from tlsearch.app.catalog import catalog
from tlsearch.app.catalog.provenance import keep_evidence
from tlsearch.app.catalog.stored import forget_end, keep_end, kept_end, read_record
from tlsearch.app.production.promote import PromoteOptions, promote
from tlsearch.app.searches.sync import sync_search
from tlsearch.app.views.report import write_search_report
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


def test_a_copy_adds_nothing_to_the_runs_of_its_original(
    entry: catalog.SearchEntry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sync_search(entry)

    def held() -> list[object]:
        client = MlflowClient(tracking_uri=entry.tracking_uri)
        runs = [run for run in _runs(entry) if run.data.tags["tlsearch.search_uid"] == entry.uid]
        models = client.search_logged_models(experiment_ids=[runs[0].info.experiment_id])
        files = [sorted(one.path for one in client.list_artifacts(run.info.run_id)) for run in runs]
        return [files, [(one.model_id, one.tags) for one in models if one.tags["tlsearch.search_uid"] == entry.uid]]

    before = held()
    shutil.copytree(entry.path, tmp_path / "elsewhere/small")
    copy = catalog.find(str(tmp_path / "elsewhere/small"))
    made = write_search_report(copy, with_model=False, with_importance=False)
    assert made.run_id is None and made.page.is_file()
    assert f"is a copy of the search in {entry.path}, whose run that is; `tlsearch sync {copy.path}`" in caplog.text
    promoted = promote(copy, PromoteOptions(without_test=True))
    assert promoted.version == "1" and held() == before
    uid = catalog.find(str(copy.path)).uid
    assert uid != entry.uid, "it is a search of its own now"
    again = promote(copy, PromoteOptions(without_test=True))  # as Python does, with what it knew of it before
    assert again.version == "1" and catalog.find(str(copy.path)).uid == uid
    assert write_search_report(entry, with_model=False, with_importance=False).run_id is not None
