"""MLflow itself: what is checked at the start, what happens while it is away, and the logged models."""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from search_records import record_of

from tlsearch.core.errors import TrackingError
from tlsearch.core.types import (
    Decision,
    EndReason,
    EpochReport,
    RecordedSearch,
    SearchRecord,
    TrialConfig,
    TrialOutcome,
    TrialRecord,
)
from tlsearch.tracking import MlflowTracker, TrackedSearch, find_run_ids, stored_search
from tlsearch.tracking.mlflow_database import sqlite_path
from tlsearch.tracking.mlflow_store import artifact_location
from tlsearch.tracking.registry.logged_models import requirements
from tlsearch.tracking.runs import cut
from tlsearch.tracking.sink.batch import without_lost_models
from tlsearch.tracking.sink.entries import DropModel, KeepModel

SERVED = """
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Stub(PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        return ["stub"] * len(model_input)

set_model(Stub())
"""
CONFIG = TrialConfig(backbone="timm/tf_efficientnet_lite0", head_lr=0.01)
DONE = TrialOutcome(reason=EndReason.COMPLETED, epochs_run=1, best_value=0.5, best_epoch=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def _tracker(uri: str, folder: Path, name: str) -> MlflowTracker:
    served = folder / "stub.py"
    served.write_text(SERVED)
    return MlflowTracker(
        TrackedSearch(uri=uri, experiment=name, search_id=name, metric="val_accuracy", served_code=served),
        first_retry_s=0.05,
        last_retry_s=0.05,
    )


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _experiment_id(uri: str, name: str) -> str:
    return str(_client(uri).get_experiment_by_name(name).experiment_id)


def _say_one_trial(tracker: MlflowTracker, number: int = 0) -> None:
    tracker.trial_started(number, CONFIG)
    report = EpochReport(epoch=1, metrics={"val_accuracy": 0.5, "odd": float("inf")}, timestamp=1000.5)
    tracker.trial_reported(number, report, Decision.COMPLETE)
    tracker.trial_ended(number, DONE)


def _record_of_one_trial() -> SearchRecord:
    """What the study holds after ``_say_one_trial``."""
    report = EpochReport(epoch=1, metrics={"val_accuracy": 0.5, "odd": float("inf")}, timestamp=1000.5)
    trial = TrialRecord(
        number=0,
        state=DONE.state,
        reason=DONE.reason,
        params={},
        config=CONFIG,
        seed=0,
        best_value=0.5,
        best_epoch=1,
        reports=(report,),
    )
    return record_of([trial])


def _checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    meta = {"backbone": CONFIG.backbone, "epoch": 1, "metric": "val_accuracy", "value": 0.5, "weights_id": "w"}
    (folder / "checkpoint.json").write_text(json.dumps(meta))
    (folder / "weights-1.safetensors").write_bytes(b"weights")
    return folder


# --- the start ---------------------------------------------------------------------------


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gopher://somewhere", "tracking.uri"),
        ("http:/half", "Invalid url"),
        ("http://no-such-host.invalid:5000", "no-such-host"),
        ("sqlite:///{folder}", "database"),
        ("sqlite:///{folder}/not-a-database.db", "not a database"),
        ("sqlite:///file:{folder}/readonly.db?mode=ro&uri=true", "readonly"),
        ("postgresql+nodriver://u:secret@127.0.0.1/x", "whose driver nodriver is not installed here"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_the_start(uri: str, said: str, tmp_path: Path) -> None:
    import sqlite3

    (tmp_path / "not-a-database.db").write_text("something else, long enough to have a header" * 50)
    sqlite3.connect(tmp_path / "readonly.db").execute("CREATE TABLE t (x)")
    tracker = _tracker(uri.format(folder=tmp_path), tmp_path, "x")
    with pytest.raises(TrackingError, match=said) as told:
        tracker.search_started({}, {})
    tracker.search_ended("failed", {})
    assert tracker.close() == 0
    assert "secret" not in str(told.value)


def test_a_deleted_experiment_is_told_with_its_cure(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "deleted")
    tracker.search_started({}, {})
    tracker.close()
    number = _experiment_id(store, "deleted")
    _client(store).delete_experiment(number)
    with pytest.raises(TrackingError, match=f"restore --experiment-id {number}"):
        _tracker(store, tmp_path, "deleted").search_started({}, {})


def test_a_server_that_is_away_gets_everything_once_from_the_study(store: str, tmp_path: Path) -> None:
    away = _tracker(f"http://127.0.0.1:{_closed_port()}", tmp_path, "away")
    away.search_started({"trials": 1}, {"space.yaml": "name: x"})
    _say_one_trial(away)
    away.keep_model(0, _checkpoint(tmp_path / "best"))
    assert away.flush(20) is False
    assert away.run_ids() == {}
    assert away.close() == 6
    for _ in range(2):
        back = _tracker(store, tmp_path, "away")
        back.search_started({"trials": 1}, {})
        back.record_search(_record_of_one_trial())
        back.keep_model(0, tmp_path / "best")
        assert back.close() == 0
        client = _client(store)
        runs = client.search_runs([_experiment_id(store, "away")])
        assert sorted(run.data.tags["tlsearch.kind"] for run in runs) == ["search", "trial"]
        (run,) = [run for run in runs if run.data.tags["tlsearch.kind"] == "trial"]
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [(p.value, p.timestamp, p.step) for p in history] == [(0.5, 1000500, 1)]
        assert len(client.search_logged_models([_experiment_id(store, "away")])) == 1
        assert "odd" not in run.data.metrics


def test_run_ids_are_those_of_the_trials_oldest_runs(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "peek")
    tracker.search_started({}, {})
    for number in (3, 0, 11, 7):
        _say_one_trial(tracker, number)
    tracker.close()
    client = _client(store)
    runs = client.search_runs([_experiment_id(store, "peek")], max_results=10)
    trials = {int(run.data.tags["tlsearch.trial"]): run for run in runs if run.data.tags["tlsearch.kind"] == "trial"}
    client.delete_run(trials.pop(7).info.run_id)
    twin = client.create_run(_experiment_id(store, "peek"), tags=trials[3].data.tags)  # made later: not the trial's
    ids = find_run_ids(RecordedSearch(uri=store, experiment="peek", search_id="peek"))
    assert ids == {number: run.info.run_id for number, run in sorted(trials.items())} and twin.info.run_id not in ids
    assert list(ids) == [0, 3, 11]
    assert find_run_ids(RecordedSearch(uri=store, experiment="peek", search_id="other")) == {}


def test_run_ids_that_cannot_be_read_cost_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = _tracker(uri, tmp_path, "later")
    tracker.search_started({}, {})
    _say_one_trial(tracker, 5)
    tracker.close()
    known = find_run_ids(RecordedSearch(uri=uri, experiment="later", search_id="later"))
    assert set(known) == {5}
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE experiments (id)")  # tables of another version
    (tmp_path / "text.db").write_text("no database " * 100)
    (tmp_path / "empty.db").touch()
    number = _experiment_id(uri, "later")
    away = f"http://127.0.0.1:{_closed_port()}"
    cases = {f"sqlite:///{tmp_path}/{name}.db": "cannot be read" for name in ("other", "text")}
    cases |= {f"sqlite:///{tmp_path}/{name}.db": "does not exist" for name in ("missing", "empty")}
    cases |= {away: "not answer", "nonsense://x": "nonsense"}
    for where, said in cases.items():
        files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        assert _ids_and_line(caplog, where, "later")[0] == {} and said in caplog.text, where
        assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert "no experiment 'unheard'" in _ids_and_line(caplog, uri, "unheard")[1]
    monkeypatch.setattr(stored_search, "require_file", lambda *_: None)  # asked as a server is
    assert find_run_ids(RecordedSearch(uri=uri, experiment="later", search_id="later")) == known
    _client(uri).delete_experiment(number)
    for _ in range(2):
        assert f"restore --experiment-id {number}" in _ids_and_line(caplog, uri, "later")[1]
        monkeypatch.undo()


def _ids_and_line(caplog: pytest.LogCaptureFixture, uri: str, experiment: str) -> tuple[dict[int, str], str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="tlsearch"):
        ids = find_run_ids(RecordedSearch(uri=uri, experiment=experiment, search_id="later"))
    (record,) = (
        one for one in caplog.records if one.name.startswith("tlsearch.tracking")
    )  # not tlsearch.core.trusted_hosts
    return ids, record.getMessage()


# --- runs --------------------------------------------------------------------------------


def test_the_layout_of_runs(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "layout")
    tracker.search_started({"trials": 1}, {"space.yaml": "name: é\n", "data/card.json": "{}"})
    _say_one_trial(tracker, 12)
    assert tracker.flush() is True
    client = _client(store)
    runs = {r.data.tags["tlsearch.kind"]: r for r in client.search_runs([_experiment_id(store, "layout")])}
    parent, child = runs["search"], runs["trial"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["tlsearch.trial"] == "12" and child.data.tags["tlsearch.search_id"] == "layout"
    assert parent.data.tags["tlsearch.search_id"] == "layout"
    assert tracker.run_ids() == {12: child.info.run_id}
    assert find_run_ids(RecordedSearch(uri=store, experiment="layout", search_id="layout")) == {12: child.info.run_id}
    assert find_run_ids(RecordedSearch(uri=store, experiment="layout", search_id="another")) == {}
    text = client.download_artifacts(parent.info.run_id, "space.yaml")
    assert Path(text).read_text(encoding="utf-8") == "name: é\n"
    folder = sqlite_path(store).parent / "mlartifacts" / "layout"  # type: ignore[union-attr]
    assert parent.info.artifact_uri.startswith(folder.as_uri())
    tracker.close()


def test_one_call_for_each_report(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    calls: list[str] = []
    for name in ("log_batch", "log_metric", "log_param", "set_tag", "create_run", "search_runs"):
        original = getattr(MlflowClient, name)

        def counted(self: Any, *args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            calls.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, counted)
    tracker = _tracker(store, tmp_path, "calls")
    tracker.search_started({}, {})
    tracker.trial_started(0, CONFIG)
    tracker.flush()
    calls.clear()
    for epoch in range(1, 6):
        report = EpochReport(epoch=epoch, metrics={f"metric_{n}": 0.5 for n in range(8)}, timestamp=float(epoch))
        tracker.trial_reported(0, report, Decision.CONTINUE)
        tracker.flush()
    assert calls == ["log_batch"] * 5
    tracker.close()


def test_a_run_that_exists_twice_is_made_one(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "twice")
    tracker.search_started({}, {})
    _say_one_trial(tracker)
    tracker.close()
    first = tracker.run_ids()[0]
    client = _client(store)
    tags = {**client.get_run(first).data.tags, "tlsearch.state": "running"}
    client.create_run(_experiment_id(store, "twice"), tags=tags)  # as if an answer of the server was lost
    again = _tracker(store, tmp_path, "twice")
    again.search_started({}, {})
    _say_one_trial(again)
    again.close()
    assert again.run_ids() == {0: first}
    assert len(client.search_runs([_experiment_id(store, "twice")])) == 2


def test_a_run_deleted_meanwhile_costs_its_own_records_only(store: str, tmp_path: Path) -> None:
    tracker = _tracker(store, tmp_path, "gone")
    tracker.search_started({}, {})
    tracker.trial_started(0, CONFIG)
    tracker.trial_started(1, CONFIG)
    tracker.flush()
    _client(store).delete_run(tracker.run_ids()[0])
    _say_one_trial(tracker, 0)
    _say_one_trial(tracker, 1)
    assert tracker.close() == 0
    assert _client(store).get_run(tracker.run_ids()[1]).info.status == "FINISHED"


def test_a_long_value_is_cut_with_a_mark(store: str, tmp_path: Path) -> None:
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    tracker = _tracker(store, tmp_path, "long")
    tracker.search_started({"short": 1, "long": "x" * 10_000, **{f"p{n}": n for n in range(250)}}, {})
    assert tracker.close() == 0
    (run,) = _client(store).search_runs([_experiment_id(store, "long")])
    assert len(run.data.params) == 252
    assert len(run.data.params["long"]) == MAX_PARAM_VAL_LENGTH
    assert run.data.params["long"].endswith("[cut from 10000 characters]")


def test_nothing_of_mlflows_reaches_the_output(tmp_path: Path) -> None:
    code = f"""
import json, logging
from pathlib import Path
from tlsearch.tracking import MlflowTracker, TrackedSearch
from tlsearch.core.types import TrialConfig
root = logging.getLogger()
before = (root.level, list(root.handlers))
search = TrackedSearch(uri="sqlite:///{tmp_path}/new/mlflow.db", experiment="x", search_id="x",
                       metric="val_accuracy", served_code=Path("{tmp_path}/s.py"))
tracker = MlflowTracker(search)
tracker.search_started({{}}, {{"a.txt": "a"}})
tracker.trial_started(0, TrialConfig(backbone="resnet18"))
tracker.keep_model(0, Path("{tmp_path}/best"))
assert tracker.close() == 0
assert (root.level, root.handlers) == before
"""
    _checkpoint(tmp_path / "best")
    (tmp_path / "s.py").write_text(SERVED)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "mlruns").exists()


def test_the_room_is_imported_without_mlflow() -> None:
    code = "import sys, tlsearch.tracking; assert not {'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_tracker_has_imported_mlflow_when_it_is_made(tmp_path: Path) -> None:
    """On the thread that makes it, as a whole: later threads, Tune's among them, find it there."""
    code = f"""
import sys
from pathlib import Path
from tlsearch.tracking import MlflowTracker, TrackedSearch
assert "mlflow" not in sys.modules
MlflowTracker(TrackedSearch(uri="sqlite:///{tmp_path}/m.db", experiment="e", search_id="s", metric="val_accuracy",
                            served_code=Path("{tmp_path}/s.py")))
mlflow = sys.modules["mlflow"]
assert not mlflow.__spec__._initializing and "mlflow.exceptions" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mlflows_global_store_is_left_alone(store: str, tmp_path: Path) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    tracker = _tracker(store, tmp_path, "global")
    tracker.search_started({}, {})
    _say_one_trial(tracker)
    tracker.keep_model(0, _checkpoint(tmp_path / "best"))
    tracker.close()
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None


# --- models ------------------------------------------------------------------------------


def _kept(store: str, tmp_path: Path, name: str) -> tuple[MlflowTracker, Any, Path]:
    tracker = _tracker(store, tmp_path, name)
    tracker.search_started({}, {})
    _say_one_trial(tracker)
    tracker.keep_model(0, _checkpoint(tmp_path / "best"))
    assert tracker.flush() is True
    (model,) = _client(store).search_logged_models([_experiment_id(store, name)])
    return tracker, model, Path(model.artifact_location.removeprefix("file://"))


def test_a_kept_model_is_code_and_the_checkpoints_files(store: str, tmp_path: Path) -> None:
    tracker, model, folder = _kept(store, tmp_path, "kept")
    tracker.close()
    assert str(model.status) == "READY" and model.source_run_id == tracker.run_ids()[0]
    assert {metric.key: metric.value for metric in model.metrics} == {"val_accuracy": 0.5}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "stub.py", "requirements.txt", "code/tlsearch/core/errors.py"} <= names
    assert {"artifacts/best/checkpoint.json", "artifacts/best/weights-1.safetensors"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".pyc"))]
    needed = (folder / "requirements.txt").read_text()
    assert "torch==" in needed and "timm==" in needed and "+" not in needed
    history = _client(store).get_metric_history(tracker.run_ids()[0], "val_accuracy")
    assert len(history) == 1  # the model's metric is the report's point


def test_a_dropped_model_is_gone_with_its_files(store: str, tmp_path: Path) -> None:
    tracker, _, folder = _kept(store, tmp_path, "dropped")
    assert folder.exists()
    tracker.drop_model(0)
    tracker.close()
    assert not folder.parent.exists()
    assert _client(store).search_logged_models([_experiment_id(store, "dropped")]) == []


def test_a_model_half_uploaded_is_made_again(store: str, tmp_path: Path) -> None:
    tracker, model, folder = _kept(store, tmp_path, "half")
    tracker.close()
    client = _client(store)
    pending = client.create_logged_model(_experiment_id(store, "half"), name="trial-1", tags=model.tags)
    again = _tracker(store, tmp_path, "half")
    again.search_started({}, {})
    again.keep_model(0, tmp_path / "best")
    again.close()
    (left,) = client.search_logged_models([_experiment_id(store, "half")])
    assert left.model_id == model.model_id != pending.model_id and folder.exists()


def test_a_checkpoint_that_is_gone_is_no_error(store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = _tracker(store, tmp_path, "missing")
    tracker.search_started({}, {})
    _say_one_trial(tracker)
    tracker.keep_model(0, tmp_path / "nowhere")
    with caplog.at_level(logging.INFO):
        assert tracker.close() == 0
    assert "nowhere" in caplog.text


# --- small pieces ------------------------------------------------------------------------


def test_a_model_that_is_dropped_later_is_not_uploaded() -> None:
    keep, drop = KeepModel(number=1, checkpoint="a"), DropModel(number=1)
    other = KeepModel(number=2, checkpoint="b")
    assert without_lost_models([keep, other, drop]) == [other, drop]
    assert without_lost_models([drop, keep]) == [drop, keep]
    assert without_lost_models([keep, drop, keep]) == [drop, keep]


def test_cut_says_how_much() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("a" * 100, 50).endswith("[cut from 100 characters]") and len(cut("a" * 100, 50)) == 50


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:////a/b.db", "/a/b.db"),
        ("sqlite+pysqlite:////a/b c.db?timeout=3", "/a/b c.db"),
        ("sqlite:///:memory:", None),
        ("http://host:5000", None),
    ],
)
def test_the_file_of_a_sqlite_uri(uri: str, path: str | None) -> None:
    assert sqlite_path(uri) == (None if path is None else Path(path))
    location = artifact_location(uri, "my/name")
    assert location == (None if path is None else "file:///a/mlartifacts/my-name-88336d4f3e7d")


def test_requirements_are_pinned_without_local_suffix() -> None:
    assert all("==" in line and "+" not in line for line in requirements(["resnet18"]))
    assert not any(line.startswith("timm") for line in requirements(["resnet18"]))
