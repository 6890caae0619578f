"""A cluster for a test: machines, an MLflow server with users, and the laptop that submits.

The machines are network namespaces where this process may make them: each has its own address, and the shared
folder is at a path where the laptop, which is this process, sees an empty one.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from homes import Home, write_digit_images
from machines import Machine, Network, network, wait_until_open
from services import ObjectStore, TrackingServer, mlflow_server, object_store, postgres_server

SPACE = """
name: real
data: {{source: folder, path: "{images}", image_size: 32}}
weights: {{mobilenet_v3_small: none}}
space: {{backbone: mobilenet_v3_small, unfreeze_depth: 5, backbone_lr: {{log: [1.0e-4, 1.0e-3]}}, bn_policy: train}}
search: {{trials: {trials}, max_epochs: {max_epochs}, scheduler: none, sampler: random, study: "{study}"}}
tracking: {{uri: "{tracking}", keep_best: 1}}
storage: "{storage}"
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
    images: str = ""
    storage: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # of every node
    store: ObjectStore | None = None

    def write_space(self, *, trials: int, max_epochs: int) -> None:
        text = SPACE.format(
            images=self.images,
            storage=self.storage,
            trials=trials,
            max_epochs=max_epochs,
            study=self.study,
            tracking=self.tracking.uri(self.net.laptop),
        )
        (self.laptop.root / "space.yaml").write_text(text)

    def worker(self, name: str) -> Machine:
        machine = self.net.add(name, self.environment)
        self.net.start_worker(machine, self.address)
        return machine

    def keys(self) -> list[str]:
        """All objects of the bucket, but for the images, and marks of folders."""
        assert self.store is not None
        pages = self.store.client().get_paginator("list_objects_v2").paginate(Bucket="team")
        found = [one["Key"] for page in pages for one in page["Contents"]]
        return [key for key in found if not key.startswith("images/") and not key.endswith("/")]

    def read(self, key: str) -> bytes:
        """An object of the bucket."""
        assert self.store is not None
        return bytes(self.store.client().get_object(Bucket="team", Key=key)["Body"].read())

    def ask(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.laptop.run(*arguments, "--json", code=code))


def make_site(stack: ExitStack, tmp_path: Path, *, postgres: bool = False, bucket: bool = False) -> Site:
    """The head runs, workers are yet to come.

    Args:
        postgres: Runs, users and studies are in PostgreSQL; else in SQLite, and the study in the shared folder.
        bucket: Images, storage and MLflow's artifacts are in an object store; else in the shared folder and beside
            the server.
    """
    net = stack.enter_context(network())
    host = "0.0.0.0" if net.isolated else "127.0.0.1"
    hidden = {"mlflow": secrets.token_hex(16), "ray": net.token}
    of_head = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": hidden["mlflow"]}
    of_server, stores, study = dict[str, str](), dict[str, str](), "auto"
    write_digit_images(net.backing / "images", per_class=16)
    images, storage, of_nodes, store = f"{net.shared}/images", f"{net.shared}/runs", dict[str, str](), None
    if postgres:
        hidden["postgres"] = of_head["PGPASSWORD"] = of_server["PGPASSWORD"] = secrets.token_hex(16)
        server = stack.enter_context(postgres_server(password=hidden["postgres"], listen=host.replace("0.0.0.0", "*")))
        for database in ("runs", "users", "studies"):
            server.create(database)
        stores = {"store": server.url("runs"), "users": server.url("users")}
        study = server.url("studies", host=net.laptop)
    if bucket:
        hidden["s3"] = secrets.token_hex(16)
        store = stack.enter_context(object_store(secret=hidden["s3"], host=host, log=tmp_path / "s3.log"))
        store.upload(net.backing / "images", "team", "images")
        shutil.rmtree(net.backing / "images")
        images, storage, stores["artifacts"] = "s3://team/images", "s3://team/runs", "s3://team/mlflow"
        of_nodes = store.environment(net.laptop)
        of_server |= store.environment()
    tracking = stack.enter_context(
        mlflow_server(tmp_path / "mlflow", password=hidden["mlflow"], host=host, environment=of_server, **stores)
    )
    of_head["TLSEARCH_TRUSTED_STORES"] = f"{study},{tracking.uri(net.laptop)}"  # as cluster/env.example has it
    head = net.add("head", {**of_head, **of_nodes})
    address, dashboard = net.start_head(head)
    laptop = Home(tmp_path / "laptop")
    laptop.root.mkdir()
    laptop.environment |= {"RAY_AUTH_TOKEN_PATH": str(net.token_path)}
    if not net.isolated:  # it sees the storage then, and asks MLflow itself
        laptop.environment |= of_head
    wait_until_open(address, process=head.processes[0])
    return Site(
        net=net,
        head=head,
        address=address,
        dashboard=dashboard,
        tracking=tracking,
        laptop=laptop,
        secrets=hidden,
        study=study,
        images=images,
        storage=storage,
        environment=of_nodes,
        store=store,
    )


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

    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.tracking.uri())  # the user's own server, which may have the password
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
        used = client.get_metric_history(trial["mlflow_run_id"], "system/system_memory_usage_megabytes")
        assert [point.step for point in used] == [point.step for point in points] and used[0].value > 1


def assert_logged(folder: Path, results: Mapping[str, Any]) -> None:
    """The driver tells of every trial's end, and each trial's worker of that trial."""
    own = _lines(folder / "log.jsonl")
    ended = {line["trial"] for line in own if " is complete " in line["message"]}
    assert ended == {trial["trial"] for trial in results["trials"]}
    theirs = [line for path in (folder / "logs").glob("*.jsonl") for line in _lines(path)]
    assert theirs and {line["trial"] for line in theirs} <= ended
    assert {line["search"] for line in (*own, *theirs)} == {results["search_id"]}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files_with(secret: str, *roots: Path) -> list[Path]:
    """Files that hold the text; sockets are no files, and temporary ones of Ray may have gone since."""
    found = []
    for path in [path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]:
        with suppress(FileNotFoundError):
            if secret.encode() in path.read_bytes():
                found.append(path)
    return found


def assert_secrets_kept(site: Site, tmp_path: Path) -> None:
    """No secret in any log, tag, artifact or config: everything that was written, but for the token's own file."""
    for name, secret in site.secrets.items():
        found = files_with(secret, site.net.root, tmp_path)
        leaks = [str(path) for path in found if path != site.net.token_path]
        assert not leaks, f"the secret of {name} is in {leaks}"
