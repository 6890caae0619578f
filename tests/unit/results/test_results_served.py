"""The served model: logged by the tracker, loaded by MLflow, answering as load_model and predict do."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tlsearch.core.errors import TrackingError, UserError
from tlsearch.core.types import Decision
from tlsearch.results import SERVED_CODE, load_model, predict
from tlsearch.tracking import MlflowTracker, TrackedSearch

if TYPE_CHECKING:
    from conftest import Trained


@dataclass(frozen=True)
class Logged:
    """The trial's model in MLflow."""

    uri: str
    store: str
    run_id: str
    folder: Path
    model: Any  # as mlflow.pyfunc loads it


@pytest.fixture(scope="module")
def logged(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    from mlflow import MlflowClient
    from mlflow.pyfunc import load_model as load_pyfunc

    root = tmp_path_factory.mktemp("mlflow")
    store = f"sqlite:///{root}/mlflow.db"
    tracker = MlflowTracker(
        TrackedSearch(
            uri=store, experiment="served", search_id="served", metric="val_accuracy", served_code=SERVED_CODE
        )
    )
    tracker.search_started({}, {})
    tracker.trial_started(3, load_model(trained.folder).meta.config)
    for report in trained.reports.values():
        tracker.trial_reported(3, report, Decision.CONTINUE)
    tracker.trial_ended(3, trained.outcome)
    tracker.keep_model(3, trained.folder / "best")
    assert tracker.close() == 0
    client = MlflowClient(tracking_uri=store)
    (model,) = client.search_logged_models([client.get_experiment_by_name("served").experiment_id])
    folder = Path(model.artifact_location.removeprefix("file://"))
    loaded = load_pyfunc(str(folder))
    yield Logged(f"models:/{model.model_id}", store, tracker.run_ids()[3], folder, loaded)


@pytest.fixture(scope="module")
def files(trained: Trained) -> list[Path]:
    return trained.val_files[::20]


@pytest.fixture(scope="module")
def texts(files: list[Path]) -> list[str]:
    return [base64.b64encode(path.read_bytes()).decode() for path in files]


@pytest.fixture(scope="module")
def expected(trained: Trained, files: list[Path]) -> list[dict[str, Any]]:
    predictions = predict(load_model(trained.folder), files)
    rows = json.loads(json.dumps([asdict(p) for p in predictions]))
    return [{key: row[key] for key in ("label", "score", "top")} for row in rows]


def _plain(answer: Any) -> Any:
    return json.loads(json.dumps(answer))


@pytest.mark.parametrize("container", ["list", "frame", "column", "row of objects"])
def test_mlflow_answers_as_predict_does(
    logged: Logged, texts: list[str], expected: list[dict[str, Any]], container: str
) -> None:
    import pandas as pd

    inputs: Any = texts
    if container == "frame":
        inputs = pd.DataFrame(texts)
    elif container == "column":
        inputs = np.array(texts).reshape(-1, 1)
    elif container == "row of objects":
        inputs = np.array(texts, dtype=object)
    if container in ("column", "row of objects"):  # the signature refuses arrays locally; over HTTP they arrive so
        answer = logged.model.unwrap_python_model().predict(None, inputs)
    else:
        answer = logged.model.predict(inputs)
    assert _plain(answer) == expected


@pytest.mark.parametrize("form", ["inputs", "dataframe_split"])
def test_the_scoring_server_takes_base64_over_http(
    logged: Logged, texts: list[str], expected: list[dict[str, Any]], form: str
) -> None:
    answer = _invoke(logged, {"inputs": texts} if form == "inputs" else {form: {"data": [[t] for t in texts]}})
    assert answer.status == 200, answer.response
    assert json.loads(answer.response)["predictions"] == expected


@pytest.mark.parametrize("text", ["cat.png", "/data/cat.png", "data/images/cat", "http://host/cat.png", "", "QUJD"])
def test_a_string_is_never_a_path(logged: Logged, tmp_path: Path, text: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=r"image 0.*|base64"):
        logged.model.predict([text])


def test_a_real_path_is_not_opened(logged: Logged, files: list[Path]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match="never a path"):
        logged.model.predict([str(files[0])])
    assert _invoke_error(logged, {"inputs": [str(files[0])]}).get_http_status_code() == 400


def test_load_model_takes_folder_and_uris(logged: Logged, files: list[Path], expected: list[dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    own = MlflowClient(tracking_uri=logged.store).get_logged_model(logged.uri.removeprefix("models:/")).name
    assert own.endswith(" trial 3")
    for name in (str(logged.folder), logged.uri, f"runs:/{logged.run_id}/{own}"):
        model = load_model(name, tracking_uri=logged.store)
        assert [p.score for p in predict(model, files)] == [row["score"] for row in expected]


def test_load_model_takes_registered_models(logged: Logged, files: list[Path], expected: list[dict[str, Any]]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=logged.store)
    client.create_registered_model("emoji")
    client.create_model_version("emoji", logged.folder.as_uri(), run_id=logged.run_id)
    client.set_registered_model_alias("emoji", "champion", "1")
    for name in ("models:/emoji/1", "models:/emoji@champion"):
        model = load_model(name, tracking_uri=logged.store)
        assert [p.score for p in predict(model, files)] == [row["score"] for row in expected]


@pytest.mark.parametrize("uri", ["models:/m-missing", "models:/none@champion", "models:/none/1", "runs:/0123/model"])
def test_a_uri_that_names_nothing_is_the_users_fault(logged: Logged, uri: str) -> None:
    with pytest.raises(UserError, match=f"{uri}.*MLFLOW_TRACKING_URI"):
        load_model(uri, tracking_uri=logged.store)


def test_a_store_that_fails_is_told_with_its_reason(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.artifact import artifact_repository_registry

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr(artifact_repository_registry, "get_artifact_repository", fail)
    with pytest.raises(TrackingError, match="s3://bucket/model cannot be had: RuntimeError: Unable to locate"):
        load_model("s3://bucket/model", tracking_uri=logged.store)


def test_no_pickle_is_in_the_model(logged: Logged) -> None:
    files = [path for path in logged.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"}]
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80" or path.read_bytes()[:2] == b"PK"]
    assert {path.suffix for path in (logged.folder / "artifacts").rglob("*") if path.is_file()} == {
        ".json",
        ".safetensors",
    }


def test_a_fresh_process_serves_from_the_models_own_code(logged: Logged, texts: list[str], tmp_path: Path) -> None:
    code = f"""
import json, sys
from mlflow.pyfunc import load_model
model = load_model({str(logged.folder)!r})
answer = model.predict(json.loads({json.dumps(texts)!r}))
import tlsearch
assert tlsearch.__file__.startswith({str(logged.folder)!r}), tlsearch.__file__
assert not {{"ray", "optuna"}} & set(sys.modules)
print(json.dumps(answer))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    served, expected = json.loads(done.stdout.splitlines()[-1]), _plain(logged.model.predict(texts))
    # Another process may compute with another number of threads, which moves the last digits.
    assert [row["label"] for row in served] == [row["label"] for row in expected]
    assert [row["score"] for row in served] == pytest.approx([row["score"] for row in expected], abs=1e-6)


def test_the_models_example_can_be_answered(logged: Logged) -> None:
    (answer,) = logged.model.predict(logged.model.input_example)
    assert answer["label"] in ("circle", "square", "stripe")


def _invoke(logged: Logged, body: dict[str, Any]) -> Any:
    from mlflow.pyfunc.scoring_server import invocations

    return invocations(
        data=json.dumps(body),
        content_type="application/json",
        model=logged.model,
        input_schema=logged.model.metadata.get_input_schema(),
    )


def _invoke_error(logged: Logged, body: dict[str, Any]) -> Any:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException) as told:
        _invoke(logged, body)
    return told.value
