"""What is judged before a space file is sent to a cluster, and what is sent."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import tlsearch
from tlsearch.app.cluster.submit import SubmitOptions, checked_file, entrypoint, submit_file
from tlsearch.core.errors import SpaceError
from tlsearch.core.user_folders import state_directory
from tlsearch.search.cluster.jobs import JobRequest, JobState

GOOD = """
name: flowers
data: {source: folder, path: /shared/flowers}
weights: {resnet18: /shared/weights/resnet18.pth}
space: {backbone: resnet18, unfreeze_depth: {int: [0, 3]}}
tracking: {uri: "http://mlflow:5000"}
storage: /shared/runs
"""


def options(tmp_path: Path, text: str = GOOD, **more: object) -> SubmitOptions:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return SubmitOptions(file=path, address="http://127.0.0.1:8265", **more)  # type: ignore[arg-type]


def problems(tmp_path: Path, text: str, **more: object) -> list[str]:
    with pytest.raises(SpaceError) as error:
        checked_file(options(tmp_path, text, **more))
    return [f"{one.line}: {one.dotted}: {one.message}" for one in error.value.faults]


def test_places_of_the_cluster_need_not_be_here(tmp_path: Path) -> None:
    assert checked_file(options(tmp_path)).storage == "/shared/runs"


def test_relative_places_are_problems_with_their_lines(tmp_path: Path) -> None:
    text = GOOD.replace("/shared/flowers", "./flowers").replace("/shared/weights/", "").replace("/shared/runs", "runs")
    found = problems(tmp_path, text.replace("http://mlflow:5000", "sqlite:///mlflow.db"))
    rule = "on a cluster a path must be the same on every node: absolute, or a URL, not"
    assert [one for one in found if rule in one] == [
        f"3: data.path: {rule} './flowers'",
        f"4: weights.resnet18: {rule} 'resnet18.pth'",
        f"6: tracking.uri: {rule} 'sqlite:///mlflow.db'",
        f"7: storage: {rule} 'runs'",
    ]


def test_defaults_that_mean_this_machine_are_faults(tmp_path: Path) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith(("tracking", "storage")))
    found = "\n".join(problems(tmp_path, text))
    assert "give --set storage=..." in found and "give --set tracking.uri=..." in found
    overrides = ["storage=/shared/runs", "tracking.uri=http://mlflow:5000"]
    assert checked_file(options(tmp_path, text, overrides=overrides)).tracking.uri == "http://mlflow:5000"
    relative = problems(tmp_path, text, overrides=["storage=runs", overrides[1]])
    assert "--set storage=runs" in relative[0]


def test_an_address_that_is_wrong_on_every_machine_is_listed(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, GOOD.replace("http://mlflow:5000", "ftp://mlflow"))
    assert found.startswith("6: tracking.uri: an MLflow store is sqlite:///FILE")


def test_the_files_own_problems_are_all_listed(tmp_path: Path) -> None:
    text = GOOD.replace("resnet18, unfreeze", "resnet19, unfreeze").replace("[0, 3]", "[0, 9]") + "serch: {}\n"
    found = "\n".join(problems(tmp_path, text))
    assert "resnet19" in found and "unfreeze_depth" in found and "serch" in found


@pytest.mark.parametrize(
    "change",
    [
        ("http://mlflow:5000", "postgresql://me:hunter2@db/mlflow"),
        ("http://mlflow:5000", "https://me:hunter2@mlflow"),
        ("http://mlflow:5000", "https://hunter2@mlflow"),
        ("http://mlflow:5000", "postgresql://me:hunt/er2@db/mlflow"),
        ("http://mlflow:5000", "postgresql://me@db/mlflow?sslpassword=hunter2"),
    ],
)
def test_a_password_never_leaves_this_machine(tmp_path: Path, change: tuple[str, str]) -> None:
    found = problems(tmp_path, GOOD.replace(*change))
    assert any("tracking.uri: a secret would be copied" in one for one in found)
    assert "hunter2" not in "\n".join(found)
    (other,) = problems(tmp_path, GOOD, overrides=[f"tracking.uri={change[1]}"])
    assert "a secret would be copied" in other and "hunter2" not in other


def test_the_entrypoint_is_one_shell_command_that_resumes(tmp_path: Path) -> None:
    given = options(tmp_path, overrides=["space.backbone=[resnet18, resnet50]"], data_path="/data/my flowers")
    assert shlex.split(entrypoint(given, "flowers-1")) == [
        *("python", "-m", "tlsearch", "run", "space.yaml", "--name", "flowers-1", "--or-resume", "--address", "auto"),
        *("--data", "/data/my flowers", "--set", "space.backbone=[resnet18, resnet50]"),
    ]


class OneJob:
    def __init__(self) -> None:
        self.requests: list[JobRequest] = []
        self.files: list[list[str]] = []

    def submit(self, request: JobRequest) -> None:
        self.requests.append(request)
        self.files.append([path.name for path in request.working_dir.iterdir()])

    def state(self, job_id: str) -> JobState | None:
        return None

    def log(self, job_id: str) -> str:
        return ""

    def stop(self, job_id: str) -> bool:
        return False


def test_what_is_sent_and_remembered(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("not for the cluster")
    jobs = OneJob()
    submitted = submit_file(options(tmp_path, name="flowers-1"), jobs=jobs)
    (request,) = jobs.requests
    assert jobs.files == [["space.yaml"]]  # the file alone, not the folder around it
    assert request.job_id == submitted.job_id == submitted.search_id == "flowers-1"
    assert request.py_modules == (Path(tlsearch.__file__).parent,)
    assert not request.working_dir.exists()
    remembered = json.loads((state_directory() / "submitted" / "flowers-1.json").read_text())
    assert remembered == {
        "search_id": "flowers-1",
        "job_id": "flowers-1",
        "address": "http://127.0.0.1:8265",
        "storage": "/shared/runs",
        "new": True,
        "ship": True,
    }
    submit_file(options(tmp_path, name="flowers-1", ship=False), jobs=jobs)
    assert jobs.requests[1].py_modules == ()


def test_nothing_is_sent_with_a_problem(tmp_path: Path) -> None:
    jobs = OneJob()
    with pytest.raises(SpaceError):
        submit_file(options(tmp_path, GOOD.replace("/shared/runs", "runs")), jobs=jobs)
    assert jobs.requests == []
