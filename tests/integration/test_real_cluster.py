"""A search on a real cluster of this machine: heads and workers of their own, a token, users, one shared folder.

The machines are network namespaces where this process may make them: each has its own address, and the shared
folder is at a path where the laptop, which is this process, sees an empty one.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from homes import Home, write_digit_images
from machines import Machine, Network, network, wait_until_open
from services import TrackingServer, mlflow_server, postgres_server, wait_until_healthy

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(1200)]

SPACE = """
name: real
data: {{source: folder, path: {shared}/images, image_size: 32}}
weights: {{mobilenet_v3_small: none}}
space: {{backbone: mobilenet_v3_small, unfreeze_depth: 5, backbone_lr: {{log: [1.0e-4, 1.0e-3]}}, bn_policy: train}}
search: {{trials: {trials}, max_epochs: {max_epochs}, scheduler: none, sampler: random, study: "{study}"}}
tracking: {{uri: "{tracking}", keep_best: 1}}
storage: {shared}/runs
"""


@dataclass(kw_only=True)
class Site:
    """A cluster, its MLflow server, and the laptop that submits."""

    net: Network
    head: Machine
    address: str
    dashboard: str
    tracking: TrackingServer
    laptop: Home
    secrets: Mapping[str, str]
    study: str = "auto"

    def write_space(self, *, trials: int, max_epochs: int, study: str = "auto") -> None:
        tracking = self.tracking.uri(self.net.laptop)
        text = SPACE.format(
            shared=self.net.shared, trials=trials, max_epochs=max_epochs, study=study, tracking=tracking
        )
        (self.laptop.root / "space.yaml").write_text(text)

    def worker(self, name: str) -> Machine:
        machine = self.net.add(name)
        self.net.start_worker(machine, self.address)
        return machine

    def ask(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.laptop.run(*arguments, "--json", code=code))


def make_site(stack: ExitStack, tmp_path: Path, *, postgres: bool) -> Site:
    net = stack.enter_context(network())
    host = "0.0.0.0" if net.isolated else "127.0.0.1"
    hidden = {"mlflow": secrets.token_hex(16), "ray": net.token}
    environment, stores = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": hidden["mlflow"]}, {}
    if postgres:
        hidden["postgres"] = environment["PGPASSWORD"] = secrets.token_hex(16)
        server = stack.enter_context(postgres_server(password=hidden["postgres"], listen=host.replace("0.0.0.0", "*")))
        for database in ("runs", "users", "studies"):
            server.create(database)
        stores = {"store": server.url("runs"), "users": server.url("users")}
        stores["study"] = server.url("studies", host=net.laptop)
    study = stores.pop("study", "auto")
    tracking = stack.enter_context(
        mlflow_server(tmp_path / "mlflow", password=hidden["mlflow"], host=host, environment=environment, **stores)
    )
    head = net.add("head", environment)
    address, dashboard = net.start_head(head)
    laptop = Home(tmp_path / "laptop")
    laptop.root.mkdir()
    laptop.environment |= {"RAY_AUTH_TOKEN_PATH": str(net.token_path)}
    write_digit_images(net.backing / "images", per_class=16)
    wait_until_open(address, process=head.processes[0])
    site = Site(
        net=net,
        head=head,
        address=address,
        dashboard=dashboard,
        tracking=tracking,
        laptop=laptop,
        secrets=hidden,
        study=study,
    )
    return site


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def wait_for(what: Callable[[], Any], *, timeout_s: float = 600) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = what()
        if answer:
            return answer
        time.sleep(1)  # polls other machines
    raise AssertionError("it did not happen in time")


def packed(machine: Machine) -> bool:
    """Whether a trial has begun there: its images are in the machine's own cache."""
    return any((machine.cache / "images").glob("*.json"))


def assert_recorded(site: Site, results: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow, asked from here as its user, says of every trial what the results say."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", site.secrets["mlflow"])
    client = MlflowClient(tracking_uri=site.tracking.uri())
    experiment = client.get_experiment_by_name("real")
    assert experiment is not None
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}
    assert len(runs) == len(results["trials"]) + 1
    for trial in results["trials"]:
        run = runs[trial["mlflow_run_id"]]
        assert run.data.tags["tlsearch.state"] == trial["state"] == "complete"
        points = client.get_metric_history(trial["mlflow_run_id"], "val_accuracy")
        assert [point.step for point in points] == list(range(1, trial["epochs_run"] + 1))


def files_with(secret: str, *roots: Path) -> list[Path]:
    """Files that hold the text; what cannot be read (sockets) is no file."""
    needle = secret.encode()
    paths = [path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in paths if needle in path.read_bytes()]


def assert_secrets_kept(site: Site, tmp_path: Path) -> None:
    """No secret in any log, tag, artifact or config: everything that was written, but for the token's own file."""
    for name, secret in site.secrets.items():
        found = files_with(secret, site.net.root, tmp_path)
        assert [path for path in found if path != site.net.token_path] == [], name


def test_a_submitted_search(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form: head, one worker, SQLite behind the MLflow server, a study in the shared folder."""
    site = make_site(stack, tmp_path, postgres=False)
    site.write_space(trials=2, max_epochs=2)
    worker = site.worker("worker")
    wait_until_open(site.dashboard.removeprefix("http://"))
    wait_until_healthy(site.tracking)
    printed = site.laptop.run("submit", "space.yaml", "--address", site.dashboard, "--name", "short")
    assert "search short submitted as job short" in printed
    results = site.ask("results", "short")
    assert [trial["epochs_run"] for trial in results["trials"]] == [2, 2]
    assert_recorded(site, results, monkeypatch)
    status = site.ask("status", "short")
    assert not status["running"] and status["trials"]["complete"] == 2
    if site.net.isolated:
        assert status["job"]["status"] == "SUCCEEDED"  # the head has answered: the folder cannot be seen from here
        assert list(site.net.shared.iterdir()) == []
    assert any(worker.cache.rglob("*")) and not any(site.head.cache.rglob("*.npy"))
    assert_secrets_kept(site, tmp_path)


@pytest.mark.slow
def test_one_worker_dies_and_another_joins(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long form: PostgreSQL under MLflow, its users and the study; stopped from the laptop and submitted again."""
    trials, max_epochs = 24, 8
    site = make_site(stack, tmp_path, postgres=True)
    site.write_space(trials=trials, max_epochs=max_epochs, study=site.study)
    first, second = site.worker("first"), site.worker("second")
    wait_until_open(site.dashboard.removeprefix("http://"))
    wait_until_healthy(site.tracking)
    submit = ("submit", "space.yaml", "--address", site.dashboard, "--name", "long")
    site.laptop.run(*submit, "--no-wait")
    folder = site.net.backing / "runs" / "long"
    wait_for(lambda: packed(first) and packed(second))  # both train
    first.kill()
    joined = site.worker("joined")
    wait_for(lambda: packed(joined))
    running = site.ask("status", "long")
    assert running["running"] and running["trials"]["failed"] == 0 and sum(running["trials"].values()) < trials
    stopped = site.ask("stop", "long", "--timeout", "120")
    assert stopped == {"search_id": "long", "was_running": True, "stopped": True}
    before = {trial["trial"]: trial for trial in site.ask("results", "long")["trials"] if trial["state"] == "complete"}
    wait_for(lambda: site.ask("status", "long")["job"]["status"] in ("FAILED", "SUCCEEDED"))
    printed = site.laptop.run(*submit)
    assert "search long submitted as job long-2" in printed
    results = site.ask("results", "long")
    assert sorted(trial["trial"] for trial in results["trials"]) == list(range(trials))
    assert {trial["epochs_run"] for trial in results["trials"]} == {max_epochs}
    after = {trial["trial"]: trial for trial in results["trials"]}
    assert {number: after[number] for number in before} == before  # nothing ran twice
    assert_recorded(site, results, monkeypatch)
    assert not (folder / "study.journal").exists() and json.loads((folder / "study.json").read_text())["name"] == "long"
    assert_secrets_kept(site, tmp_path)
