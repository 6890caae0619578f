"""Files that are added to a search's run afterwards."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tlsearch.core.types import Decision, EpochReport, RecordedSearch, TrialConfig
from tlsearch.tracking import MlflowTracker, TrackedSearch, log_search_files


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one search, `one`, that has a trial."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    served = folder / "served.py"
    served.write_text("")
    tracker = MlflowTracker(
        TrackedSearch(uri=uri, experiment="exp", search_id="one", metric="val_accuracy", served_code=served)
    )
    tracker.search_started({}, {})
    tracker.trial_started(0, TrialConfig(backbone="resnet18"))
    tracker.trial_reported(0, EpochReport(epoch=1, metrics={"val_accuracy": 0.5}, timestamp=1.0), Decision.CONTINUE)
    tracker.search_ended("finished", {})
    assert tracker.close() == 0
    return uri


def test_files_go_to_the_searchs_own_run_and_are_replaced(store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    page, plot = tmp_path / "report.html", tmp_path / "history.png"
    plot.write_bytes(b"png")
    files = {"report.html": page, "plots/history.png": plot}
    for text in ("first", "second"):
        page.write_text(text)
        run_id = log_search_files(RecordedSearch(uri=store, experiment="exp", search_id="one"), files)
    assert run_id is not None
    client = MlflowClient(tracking_uri=store)
    run = client.get_run(run_id)
    assert run.data.tags["tlsearch.kind"] == "search" and run.data.tags["tlsearch.search_id"] == "one"
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {"report.html", "plots"}
    assert Path(client.download_artifacts(run_id, "report.html")).read_text() == "second"
    assert Path(client.download_artifacts(run_id, "plots/history.png")).read_bytes() == b"png"


@pytest.mark.parametrize(("experiment", "search_id"), [("exp", "unknown"), ("unknown", "one")])
def test_a_search_that_mlflow_does_not_know(
    store: str, tmp_path: Path, experiment: str, search_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="tlsearch"):
        assert log_search_files(RecordedSearch(uri=store, experiment=experiment, search_id=search_id), {}) is None
    assert "not logged" in caplog.text


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/absent.db"
    assert log_search_files(RecordedSearch(uri=uri, experiment="exp", search_id="one"), {}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tlsearch"):
        assert log_search_files(RecordedSearch(uri="http://127.0.0.1:9", experiment="exp", search_id="one"), {}) is None
        assert log_search_files(RecordedSearch(uri="nonsense://x", experiment="exp", search_id="one"), {}) is None
    assert "not answer" in caplog.text and "must name an MLflow store" in caplog.text
