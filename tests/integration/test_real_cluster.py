"""Searches that are submitted to a real cluster of this machine, lose workers, gain some, and are read from outside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from machines import wait_until_open
from services import wait_until_healthy
from sites import assert_logged, assert_recorded, assert_secrets_kept, make_site, packed, wait_for

from tlsearch.core.layout import VAL_LOGITS

pytestmark = [pytest.mark.ray, pytest.mark.cluster, pytest.mark.timeout(2400)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_submitted_search(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form: head, one worker, SQLite behind the MLflow server, a study in the shared folder."""
    site = make_site(stack, tmp_path)
    site.write_space(trials=2, max_epochs=2)
    worker = site.worker("worker")
    wait_until_open(site.dashboard.removeprefix("http://"))
    wait_until_healthy(site.tracking)
    printed = site.laptop.run("submit", "space.yaml", "--address", site.dashboard, "--name", "short")
    assert "search short submitted as job short" in printed
    results = site.ask("results", "short")
    assert [trial["epochs_run"] for trial in results["trials"]] == [2, 2]
    assert_recorded(site, results, monkeypatch)
    assert_logged(site.net.backing / "runs" / "short", results)
    status = site.ask("status", "short")
    assert not status["running"] and status["trials"]["complete"] == 2
    if site.net.isolated:
        assert status["job"]["status"] == "SUCCEEDED"  # the head has answered: the folder cannot be seen from here
        assert list(site.net.shared.iterdir()) == []
    assert any(worker.cache.rglob("*")) and not any(site.head.cache.rglob("*.bin"))
    assert_secrets_kept(site, tmp_path)


@pytest.mark.slow
def test_one_worker_dies_and_another_joins(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long form: PostgreSQL under MLflow, its users and the study; stopped from the laptop and submitted again."""
    trials, max_epochs = 24, 8
    site = make_site(stack, tmp_path, postgres=True)
    site.write_space(trials=trials, max_epochs=max_epochs)
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
    assert running["dashboard"] == site.dashboard and running["log"].endswith("/runs/long/log.jsonl")
    stopped = site.ask("stop", "long", "--timeout", "120")
    assert stopped == {"search_id": "long", "was_running": True, "stopped": True}
    before = {trial["trial"]: trial for trial in site.ask("results", "long")["trials"] if trial["state"] == "complete"}
    wait_for(lambda: site.ask("status", "long")["job"]["status"] in ("FAILED", "SUCCEEDED"))
    printed = site.laptop.run(*submit, timeout_s=1500)
    assert "search long submitted as job long-2" in printed
    results = site.ask("results", "long")
    assert sorted(trial["trial"] for trial in results["trials"]) == list(range(trials))
    assert {trial["epochs_run"] for trial in results["trials"]} == {max_epochs}
    after = {trial["trial"]: trial for trial in results["trials"]}
    assert {number: after[number] for number in before} == before  # nothing ran twice
    assert_recorded(site, results, monkeypatch)
    assert_logged(folder, results)
    assert not (folder / "study.journal").exists() and json.loads((folder / "study.json").read_text())["name"] == "long"
    assert_secrets_kept(site, tmp_path)


@pytest.mark.slow
def test_everything_in_a_bucket(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder is shared: images, storage, models are in a bucket, the study in PostgreSQL; a head's disk is lost."""
    site = make_site(stack, tmp_path, postgres=True, bucket=True)
    site.write_space(trials=3, max_epochs=2)
    workers = [site.worker("one"), site.worker("two")]
    wait_until_open(site.dashboard.removeprefix("http://"))
    wait_until_healthy(site.tracking)
    site.laptop.run("submit", "space.yaml", "--address", site.dashboard, "--name", "bucket", timeout_s=1500)
    results = site.ask("results", "bucket")
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 3
    assert_recorded(site, results, monkeypatch)
    fetched = {machine.name: len(list((machine.cache / "data").rglob("*.png"))) for machine in (site.head, *workers)}
    assert set(fetched.values()) <= {0, 160} and fetched["head"] == 160  # train and val, each once
    kept = site.keys()
    assert {key for key in kept if key.startswith("mlflow/") and key.endswith("leaderboard.csv")}
    of_trials = [key.split("/")[3:] for key in kept if key.startswith("runs/bucket/trials/")]
    assert {trial for trial, name, *_ in of_trials if name == VAL_LOGITS} == {"0", "1", "2"}  # of evicted models, too
    assert {trial for trial, name, *_ in of_trials if name != VAL_LOGITS} == {str(results["best"])}
    shutil.rmtree(site.head.cache)
    shutil.rmtree(site.head.folder / "state")
    assert site.ask("results", "bucket") == results  # read from the bucket and the database
    assert_secrets_kept(site, tmp_path)
    for key in kept:
        content = site.read(key)
        assert not [name for name, secret in site.secrets.items() if secret.encode() in content], key
