"""A real MLflow server that goes away in the middle of a search and comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mortal_server import Server

from tlsearch.core.types import Decision, EndReason, EpochReport, RecordedSearch, TrialConfig, TrialOutcome
from tlsearch.tracking import MlflowTracker, TrackedSearch, find_run_ids

pytestmark = [pytest.mark.slow]

SERVED = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Stub(PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        return ["stub"] * len(model_input)

set_model(Stub())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The threads that have sent a request."""
    seen: set[int] = set()
    send = requests.Session.send

    def noted(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        seen.add(threading.get_ident())
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", noted)
    return seen


def test_a_server_goes_away_and_comes_back(
    server: Server, senders: set[int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    served = tmp_path / "stub.py"
    served.write_text(SERVED)
    tracker = MlflowTracker(
        TrackedSearch(uri=server.uri, experiment="away", search_id="away", metric="val_accuracy", served_code=served),
        first_retry_s=0.2,
        last_retry_s=0.5,
    )
    tracker.search_started({"trials": 3}, {"space.yaml": "name: x"})
    for number in range(3):
        if number == 1:
            assert tracker.flush(60)
            server.stop()
        checkpoint = tmp_path / "trials" / str(number)
        checkpoint.mkdir(parents=True)
        meta = {"backbone": "resnet18", "epoch": 1, "metric": "val_accuracy", "value": 0.5}
        (checkpoint / "checkpoint.json").write_text(json.dumps(meta))
        (checkpoint / "weights.safetensors").write_bytes(b"weights")
        senders.clear()
        tracker.trial_started(number, TrialConfig(backbone="resnet18"))
        for epoch in (1, 2):
            report = EpochReport(epoch=epoch, metrics={"val_accuracy": 0.5 / epoch}, timestamp=1000.0 * number + epoch)
            tracker.trial_reported(number, report, Decision.CONTINUE)
        done = TrialOutcome(reason=EndReason.COMPLETED, epochs_run=2, best_value=0.5, best_epoch=1)
        tracker.trial_ended(number, done)
        tracker.keep_model(number, checkpoint)
        if number:
            tracker.drop_model(number - 1)
        assert threading.get_ident() not in senders  # a search never waits for MLflow
    assert tracker.flush(30) is False
    server.start()
    tracker.search_ended("finished", {"leaderboard.csv": "trial\n"})
    deadline = time.monotonic() + 60
    while not tracker.flush(1) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert tracker.close() == 0

    client = MlflowClient(tracking_uri=server.uri)
    ids = find_run_ids(RecordedSearch(uri=server.uri, experiment="away", search_id="away"))
    assert set(ids) == {0, 1, 2} and ids == tracker.run_ids()
    experiment_id = client.get_experiment_by_name("away").experiment_id
    assert len(client.search_runs([experiment_id])) == 4
    for run_id in ids.values():
        assert [p.step for p in client.get_metric_history(run_id, "val_accuracy")] == [1, 2]
        assert client.get_run(run_id).info.status == "FINISHED"
    (model,) = client.search_logged_models([experiment_id])
    assert model.name == "away trial 2"
    assert len(list((tmp_path / "files").rglob("weights.safetensors"))) == 1  # dropped ones are gone on the server too
    out, err = capfd.readouterr()
    assert "View run" not in out and "Traceback" not in err
