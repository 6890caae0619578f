"""Two searches of one name in one MLflow store: each has runs and models of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tlsearch.core.types import Decision, EndReason, EpochReport, RecordedSearch, TrialConfig, TrialOutcome
from tlsearch.tracking import MlflowTracker, TrackedSearch, find_run_ids, log_search_files

NAME = "baseline"


def _record(uri: str, folder: Path, uid: str, value: float) -> dict[int, str]:
    """One trial of a search, with its model."""
    folder.mkdir()
    (folder / "served.py").write_text("from mlflow.models import set_model\n")
    checkpoint = folder / "best"
    checkpoint.mkdir()
    meta = {"backbone": "resnet18", "epoch": 1, "metric": "val_accuracy", "value": value, "weights_id": uid}
    (checkpoint / "checkpoint.json").write_text(json.dumps(meta))
    tracker = MlflowTracker(
        TrackedSearch(
            uri=uri,
            experiment="flowers",
            search_id=NAME,
            metric="val_accuracy",
            served_code=folder / "served.py",
            uid=uid,
        )
    )
    tracker.search_started({}, {})
    tracker.trial_started(0, TrialConfig(backbone="resnet18", head_lr=value))
    report = EpochReport(epoch=1, metrics={"val_accuracy": value}, timestamp=1.0)
    tracker.trial_reported(0, report, Decision.COMPLETE)
    done = TrialOutcome(reason=EndReason.COMPLETED, epochs_run=1, best_value=value, best_epoch=1, error="")
    tracker.trial_ended(0, done)
    tracker.search_ended("finished", {})
    assert tracker.close() == 0
    return dict(tracker.run_ids())


def test_searches_of_one_name_do_not_share_runs(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    values = {"": 0.25, "a" * 32: 0.5, "b" * 32: 0.75}  # the first is of a version without unique ids
    ids = {uid: _record(uri, tmp_path / f"of{uid}", uid, value) for uid, value in values.items()}
    client: Any = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("flowers").experiment_id
    assert len(client.search_runs([experiment])) == 6
    for uid, value in values.items():
        assert find_run_ids(RecordedSearch(uri=uri, experiment="flowers", search_id=NAME, uid=uid)) == ids[uid]
        history = client.get_metric_history(ids[uid][0], "val_accuracy")
        assert [point.value for point in history] == [value]
        run = client.get_run(ids[uid][0])
        assert run.data.tags["tlsearch.search_id"] == NAME and run.data.tags.get("tlsearch.search_uid", "") == uid
        (tmp_path / "note.txt").write_text(uid)
        files = {"note.txt": tmp_path / "note.txt"}
        above = log_search_files(RecordedSearch(uri=uri, experiment="flowers", search_id=NAME, uid=uid), files)
        assert above == run.data.tags["mlflow.parentRunId"]
    again = _record(uri, tmp_path / "again", "a" * 32, 0.5)  # a resend finds its own
    assert again == ids["a" * 32] and len(client.search_runs([experiment])) == 6
