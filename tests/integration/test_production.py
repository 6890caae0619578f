"""From a fresh folder to a served model: run, confirm, promote, serve; the test split sealed until promote.

One search serves all tests of the file; they run in its order.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from homes import Home, need_demo_weights, write_digit_images, write_digit_space
from serving import AUDIT, ask, imported, serving

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


_READS_IN_A_WORKER = """
import ray
from tlsearch.search.cluster.connect import connected, settle_authentication
settle_authentication("local")
with connected("local", num_cpus=1):
    read = ray.remote(lambda: len(open({path!r}, "rb").read()))
    assert ray.get(read.remote()) > 0
"""


def _audited(home: Home, log: Path, **more: str) -> None:
    home.environment |= {
        "PYTHONPATH": str(AUDIT),
        "TLSEARCH_AUDIT_LOG": str(log),
        "TLSEARCH_AUDIT_FOLDER": str(home.root / "images"),
        **more,
    }


def _opened(log: Path, split: str) -> set[str]:
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    return {line[2] for line in lines if line[1] == "open" and f"/images/{split}/" in line[2]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    need_demo_weights()
    home = Home(tmp_path_factory.mktemp("production"))
    images = home.root / "images"
    write_digit_images(images, per_class=32)
    for folder in sorted((images / "train").iterdir()):
        for file in sorted(folder.iterdir())[-6:]:
            (images / "test" / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.move(file, images / "test" / folder.name / file.name)
    write_digit_space(home, trials=3, max_epochs=2, depth="0")
    _audited(home, home.root / "run.log")
    home.run("run", "space.yaml", "--name", "digits")
    yield home


def test_a_run_opens_no_test_image(home: Home) -> None:
    log = home.root / "run.log"
    assert len(_opened(log, "val")) == 80 and len(_opened(log, "train")) > 100  # the hook sees what is opened
    processes = {line.split(" ", 1)[0] for line in log.read_text().splitlines() if " open " in line}
    assert len(processes) >= 2  # in the driver and in workers
    assert _opened(log, "test") == set()


def test_the_seal_is_seen_to_break_when_one_image_is_read(home: Home) -> None:
    log = home.root / "break.log"
    one = next((home.root / "images/test").rglob("*.png"))
    code = _READS_IN_A_WORKER.format(path=str(one))
    environment = {**home.environment, "TLSEARCH_AUDIT_LOG": str(log)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert _opened(log, "test") == {str(one)}


def test_confirm_then_promote(home: Home) -> None:
    _audited(home, home.root / "confirm.log")
    confirmed = json.loads(home.run("confirm", "--top", "2", "--seeds", "2", "--json"))
    assert confirmed["search_id"] == "digits" and confirmed["confirm_search_id"] == "digits-confirm"
    assert confirmed["outcome"] in ("better", "equal") and len(confirmed["candidates"]) == 2
    assert all(len(one["values"]) == 2 for one in confirmed["candidates"])
    assert _opened(home.root / "confirm.log", "test") == set()
    again = json.loads(home.run("confirm", "--top", "2", "--seeds", "2", "--json"))
    assert again == confirmed
    _audited(home, home.root / "promote.log")
    promoted = json.loads(home.run("promote", "--json"))
    assert promoted["uri"] == "models:/digit-images@champion"
    assert promoted["search_id"] == "digits-confirm" and promoted["test"]["num_images"] == 60
    assert len(_opened(home.root / "promote.log", "test")) == 60
    home.environment["MLFLOW_TRACKING_URI"] = home.tracking_uri
    files = home.root / "images" / "test"
    predictions = json.loads(home.run("predict", promoted["uri"], str(files), "--json"))
    right = sum(Path(one["path"]).parent.name == one["label"] for one in predictions)
    assert right / len(predictions) == pytest.approx(promoted["test"]["accuracy"], abs=1e-12)
    _check_nesting(home)


def test_an_evaluation_without_tlsearch_gives_the_cards_accuracy(home: Home) -> None:
    home.run("export", "models:/digit-images@champion", "--format", "script", "--output", "plain", "--json")
    files = sorted((home.root / "images" / "test").rglob("*.png"))
    command = [sys.executable, "plain/predict.py", "--json", *map(str, files)]
    done = subprocess.run(command, cwd=home.root, capture_output=True, text=True, check=True, timeout=200)
    assert "import tlsearch" not in (home.root / "plain/predict.py").read_text()
    right = sum(Path(one["path"]).parent.name == one["label"] for one in json.loads(done.stdout))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri, registry_uri=home.tracking_uri)
    version = client.get_model_version_by_alias("digit-images", "champion")
    assert len(files) == 60 and float(version.tags["test_accuracy"]) == pytest.approx(right / 60, abs=1e-5)
    assert f"Test accuracy {right / 60:.4f}" in version.description


def _check_nesting(home: Home) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name("digit-images")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_search = {r.data.tags["tlsearch.search_id"]: r for r in runs if r.data.tags["tlsearch.kind"] == "search"}
    assert set(by_search) == {"digits", "digits-confirm"}
    child = by_search["digits-confirm"].data.tags
    assert child["mlflow.parentRunId"] == by_search["digits"].info.run_id
    assert child["tlsearch.parent_search"] == "digits"
    assert by_search["digits"].data.tags["tlsearch.confirmed_by"] == "digits-confirm"


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[str]:
    environment = {**home.environment, "MLFLOW_TRACKING_URI": home.tracking_uri}
    with serving("models:/digit-images@champion", environment=environment, folder=home.root) as address:
        yield address


def test_the_server_answers_as_predict_does(home: Home, server: str) -> None:
    files = sorted((home.root / "images/val").rglob("*.png"))[::16]
    home.environment["MLFLOW_TRACKING_URI"] = home.tracking_uri
    expected = json.loads(home.run("predict", "models:/digit-images@champion", *map(str, files), "--json"))
    for answer, ours in zip(ask(server, files), expected, strict=True):
        assert answer["label"] == ours["label"]
        assert answer["score"] == pytest.approx(ours["score"], abs=1e-6)
        assert [one["label"] for one in answer["top"]] == [one["label"] for one in ours["top"]]


def test_the_serving_process_imports_neither_ray_nor_optuna(home: Home, server: str) -> None:
    processes, imports = imported(home.root / "serve.log")
    assert processes >= 2 and imports == []  # mlflow's command and its server


def test_mlflow_models_predict_takes_a_file(home: Home) -> None:
    file = next((home.root / "images/val").rglob("*.png"))
    request = home.root / "request.json"
    request.write_text(json.dumps({"inputs": [base64.b64encode(file.read_bytes()).decode()]}))
    answer = home.root / "answer.json"
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", "models:/digit-images@champion"]
    command += ["--env-manager", "local", "-i", str(request), "-t", "json", "-o", str(answer)]
    environment = {**home.environment, "MLFLOW_TRACKING_URI": home.tracking_uri}
    done = subprocess.run(command, env=environment, cwd=home.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(answer.read_text())["predictions"]
    home.environment["MLFLOW_TRACKING_URI"] = home.tracking_uri
    (ours,) = json.loads(home.run("predict", "models:/digit-images@champion", str(file), "--json"))
    assert (found["label"], found["score"]) == (ours["label"], pytest.approx(ours["score"], abs=1e-6))
