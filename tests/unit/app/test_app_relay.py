"""Commands about a submitted search: where it is looked for, and how its cluster's head answers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tlsearch.cli.commands  # noqa: F401  # its modules add their commands
from tlsearch.app.catalog.catalog import MANIFEST, SearchEntry, register
from tlsearch.app.cluster import relay
from tlsearch.app.cluster.submit import SUBMITTED, Submitted
from tlsearch.cli.root import app
from tlsearch.core.errors import ClusterError, StorageError, UsageError
from tlsearch.core.user_folders import state_directory
from tlsearch.search.cluster.jobs import JobRequest, JobsAway, JobState

FLOWERS = Submitted(search_id="flowers", job_id="flowers-2", address="http://127.0.0.1:8265", storage="/shared/runs")


class HeadHere:
    """A cluster whose head is this machine: a job's command is run, and its log has lines of Ray around it."""

    def __init__(self, *, gaps: int = 0, command: str | None = None) -> None:
        self.requests: list[JobRequest] = []
        self.forgotten: list[str] = []
        self.stopped: list[str] = []
        self.text = ""
        self._gaps, self._command = gaps, command

    def submit(self, request: JobRequest) -> None:
        self.requests.append(request)
        words = shlex.split(self._command or request.entrypoint)
        if words[0] == "python":
            words[0] = sys.executable
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
        self.text = f"INFO job_manager.py -- Runtime env is setting up.\n{done.stdout}{done.stderr}"

    def state(self, job_id: str) -> JobState | None:
        if job_id == FLOWERS.job_id:
            return JobState(job_id=job_id, status="RUNNING")
        if self._gaps:
            self._gaps -= 1
            raise JobsAway("no answer")
        return JobState(job_id=job_id, status="SUCCEEDED")

    def log(self, job_id: str) -> str:
        return self.text

    def stop(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True

    def forget(self, job_id: str) -> None:
        self.forgotten.append(job_id)


def remember(submitted: Submitted) -> None:
    folder = state_directory() / SUBMITTED
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{submitted.search_id}.json").write_text(json.dumps(asdict(submitted)))


def make_entry(root: Path, name: str) -> SearchEntry:
    entry = SearchEntry(
        search_id=name,
        experiment="e",
        directory=str(root / name),
        source="",
        tracking_uri="sqlite:////nowhere.db",
        metric="val_accuracy",
        created=0.0,
    )
    entry.path.mkdir(parents=True)
    register(entry)
    return entry


def test_the_command_runs_on_the_head(tmp_path: Path) -> None:
    jobs = HeadHere(gaps=1)
    waited: list[float] = []
    answer = relay.ask(FLOWERS, ["status", "flowers", "--storage", str(tmp_path)], jobs=jobs, wait=waited.append)
    assert (answer.code, answer.stdout) == (2, "")
    assert answer.stderr == f"no search was found in {tmp_path}; start one with `tlsearch run FILE`\n"
    assert answer.job == JobState(job_id="flowers-2", status="RUNNING") and len(waited) == 1
    (request,) = jobs.requests
    assert request.job_id.startswith("flowers-2-ask-") and jobs.forgotten == [request.job_id]
    assert request.runtime_env["py_modules"] and "working_dir" not in request.runtime_env


def test_a_head_that_cannot_run_it_says_why() -> None:
    jobs = HeadHere(command=f"{sys.executable} -c 'raise SystemExit(\"no space left\")'")
    with pytest.raises(ClusterError, match=r"could not run `tlsearch status flowers`: no space left"):
        relay.ask(FLOWERS, ["status", "flowers"], jobs=jobs)


def test_a_head_that_is_silent_is_given_up_and_its_job_ended() -> None:
    jobs = HeadHere(gaps=10**9, command="true")
    with pytest.raises(ClusterError, match=r"not answered within 0.01 s"):
        relay.ask(FLOWERS, ["status"], jobs=jobs, wait=lambda s: None, timeout_s=0.01)
    assert jobs.stopped == jobs.forgotten == [jobs.requests[0].job_id]


def test_a_submitted_search_is_found_by_name_or_as_the_latest(tmp_path: Path) -> None:
    remember(FLOWERS)
    assert relay.locate("flowers") == relay.locate(None) == FLOWERS
    entry = make_entry(tmp_path / "runs", "later")
    (written,) = state_directory().glob("later.*.json")
    os.utime(written, (2e9, 2e9))
    assert relay.locate(None) == entry and relay.locate("flowers") == FLOWERS
    with pytest.raises(StorageError, match="no search 'trees'"):
        relay.locate("trees")


def test_a_storage_that_this_machine_sees_is_read_here(tmp_path: Path) -> None:
    entry = make_entry(tmp_path / "shared", "flowers")
    (written,) = state_directory().glob("flowers.*.json")
    written.unlink()  # it was started on the head
    remember(Submitted(search_id="flowers", job_id="flowers", address="http://h:1", storage=str(tmp_path / "shared")))
    assert (entry.path / MANIFEST).is_file() and relay.locate("flowers") == entry
    assert relay.locate("flowers", tmp_path / "shared") == entry


def test_an_address_asks_the_cluster_also_for_others_searches() -> None:
    remember(FLOWERS)
    moved = relay.locate("flowers", None, "http://127.0.0.1:9999")
    assert isinstance(moved, Submitted) and (moved.address, moved.storage) == ("http://127.0.0.1:9999", "/shared/runs")
    theirs = relay.locate("trees", "/their/runs", "http://h:1")
    assert theirs == Submitted(search_id="trees", job_id="trees", address="http://h:1", storage="/their/runs")
    with pytest.raises(UsageError, match="by its ID and its cluster's --storage"):
        relay.locate("trees", None, "http://h:1")


def test_the_commands_print_what_the_head_says(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(FLOWERS)
    asked: list[list[str]] = []

    def ask(submitted: Submitted, arguments: list[str], *, timeout_s: float) -> relay.Answer:
        asked.append(arguments)
        document = {"running": True, "running_trials": []}
        return relay.Answer(code=0, stdout=json.dumps(document), stderr="", job=JobState(job_id="j", status="RUNNING"))

    monkeypatch.setattr(relay, "ask", ask)
    done = CliRunner().invoke(app, ["status", "flowers", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["job"]["status"] == "RUNNING"
    assert CliRunner().invoke(app, ["stop", "flowers", "--timeout", "5"]).exit_code == 0
    assert CliRunner().invoke(app, ["results", "--top", "3", "--where", "unfreeze_depth>=2"]).exit_code == 0
    here = ["flowers", "--storage", "/shared/runs"]
    assert asked == [
        ["status", *here, "--json"],
        ["stop", *here, "--timeout", "5.0"],
        ["results", *here, "--top", "3", "--where", "unfreeze_depth>=2"],
    ]
