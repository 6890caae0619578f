"""Jobs on a stand-in for the Jobs API: once only, followed through gaps; the HTTP side's errors explained."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tlsearch.core.errors import ClusterError
from tlsearch.search.cluster.auth_probe import refused
from tlsearch.search.cluster.job_submission import follow, submit_once
from tlsearch.search.cluster.jobs import JobRequest, Jobs, JobsAway, JobState, check_http_address

REQUEST = JobRequest(job_id="flowers", entrypoint="true", working_dir=Path("/tmp"))


@dataclass
class StubJobs:
    """The Jobs API in memory; ``script`` is what each look at a job gives: a state and the log, or an error."""

    states: dict[str, str] = field(default_factory=dict)
    script: list[tuple[str, str] | Exception | None] = field(default_factory=list)
    submitted: list[JobRequest] = field(default_factory=list)
    text: str = ""

    def submit(self, request: JobRequest) -> None:
        assert request.job_id not in self.states
        self.submitted.append(request)
        self.states[request.job_id] = "PENDING"

    def state(self, job_id: str) -> JobState | None:
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            if step is None:
                return None
            self.states[job_id], self.text = step
        status = self.states.get(job_id)
        return None if status is None else JobState(job_id=job_id, status=status)

    def log(self, job_id: str) -> str:
        return self.text

    def stop(self, job_id: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, ("flowers", True)),
        ({"flowers": "RUNNING"}, ("flowers", False)),
        ({"flowers": "PENDING"}, ("flowers", False)),
        ({"flowers": "FAILED"}, ("flowers-2", True)),
        ({"flowers": "STOPPED", "flowers-2": "RUNNING"}, ("flowers-2", False)),
        ({"flowers": "FAILED", "flowers-2": "SUCCEEDED"}, ("flowers-3", True)),
    ],
)
def test_a_search_runs_as_one_job_at_a_time(states: dict[str, str], expected: tuple[str, bool]) -> None:
    jobs = StubJobs(states=dict(states))
    assert submit_once(jobs, REQUEST) == expected
    assert [one.job_id for one in jobs.submitted] == ([expected[0]] if expected[1] else [])


class LateJobs(StubJobs):
    """A head that takes a job only when asked for the third time, and whose first answer is lost."""

    asked = 0
    lost = False

    def submit(self, request: JobRequest) -> None:
        self.asked += 1
        if self.asked < 3:
            raise JobsAway("No available agent to submit job, please try again later")
        super().submit(request)
        if self.lost:
            raise JobsAway("timed out")


def test_a_head_that_is_not_ready_is_asked_again() -> None:
    jobs = LateJobs()
    waits: list[float] = []
    assert submit_once(jobs, REQUEST, wait=waits.append) == ("flowers", True)
    assert waits == [2.0, 2.0]


def test_a_job_whose_submission_was_not_answered_is_not_doubled() -> None:
    jobs = LateJobs()
    jobs.lost = True
    assert submit_once(jobs, REQUEST, wait=lambda s: None) == ("flowers", False)
    assert len(jobs.submitted) == 1


def test_a_head_that_never_takes_the_job_is_given_up() -> None:
    jobs = LateJobs()
    waits: list[float] = []
    jobs.asked = -1000
    clock = iter(range(0, 1000, 30))  # each try takes long itself
    with pytest.raises(JobsAway, match="No available agent"):
        submit_once(jobs, REQUEST, wait=waits.append, timer=lambda: float(next(clock)))
    assert len(waits) == 4


def test_following_writes_everything_once_through_gaps() -> None:
    away = JobsAway("gone")
    jobs = StubJobs(
        script=[
            ("PENDING", ""),
            ("RUNNING", "one\n"),
            away,
            away,
            away,
            ("RUNNING", "one\ntwo\nthr"),
            ("RUNNING", "one\ntwo\nthr"),
            ("SUCCEEDED", "one\ntwo\nthree\n"),
        ]
    )
    written: list[str] = []
    notes: list[str] = []
    waits: list[float] = []
    state = follow(jobs, "flowers", written.append, note=notes.append, wait=waits.append)
    assert state == JobState(job_id="flowers", status="SUCCEEDED")
    assert written == ["one\n", "two\nthr", "ee\n"]
    assert notes == ["gone; the job goes on, trying again", "the cluster answers again"]
    assert waits[2:5] == [2.0, 4.0, 8.0]


def test_a_long_log_is_asked_for_less_often() -> None:
    waits: list[float] = []
    long = "x" * 2_500_000
    follow(StubJobs(script=[("RUNNING", long), ("FAILED", long)]), "a", lambda text: None, wait=waits.append)
    assert waits == [10.0]


def test_a_head_started_anew_knows_the_job_no_more() -> None:
    assert follow(StubJobs(script=[("RUNNING", ""), None]), "a", lambda text: None, wait=lambda s: None) is None


def test_a_refusal_is_told() -> None:
    with pytest.raises(ClusterError, match="no"):
        follow(StubJobs(script=[ClusterError("no")]), "a", lambda text: None, wait=lambda s: None)


def test_the_runtime_environment_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    request = JobRequest(job_id="a", entrypoint="b", working_dir=Path("/w"), py_modules=(Path("/p/tlsearch"),))
    assert request.runtime_env == {
        "working_dir": "/w",
        "env_vars": {"PYTHONUNBUFFERED": "1"},
        "py_modules": ["/p/tlsearch"],
        "excludes": ["**/__pycache__/"],
    }


def test_tune_puts_no_key_into_the_workers_runtime_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would by default, and Ray logs such environments on every node."""
    from ray.tune.execution.class_cache import _ActorClassCache

    from tlsearch.search.ray_tune.tuner import tune_environment

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with tune_environment():
        made = _ActorClassCache().get(type("Worker", (), {}))
    assert "PL_DISABLE_FORK" in str(made._default_options) and "hunter2" not in str(made._default_options)


@pytest.mark.parametrize("address", ["head:6379", "ray://head:10001", "http://", "auto", "http://h:x"])
def test_an_address_that_is_no_dashboard(address: str) -> None:
    with pytest.raises(ClusterError, match=r"http://HEAD:8265"):
        check_http_address(address)


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(ClusterError, match="no user and no password"):
        check_http_address("http://me:pw@head:8265")


def test_nothing_listens() -> None:
    with pytest.raises(JobsAway, match="ssh -L"):
        check_http_address("http://127.0.0.1:9")


SENT = "RAY_AUTH_MODE is token, token from RAY_AUTH_TOKEN"
NONE = "RAY_AUTH_MODE is not set, token from nowhere"


@pytest.mark.parametrize(
    ("answer", "authentication", "told"),
    [
        ("Authentication required: Unauthorized", NONE, "requires a token"),
        ("Authentication failed: Forbidden", SENT, "does not accept this token"),
        ("InvalidAuthToken: Authentication token is missing or incorrect", SENT, "does not accept this token"),
        ("InvalidAuthToken: Authentication token is missing or incorrect", NONE, "requires a token"),
    ],
)
def test_a_refused_token_says_what_to_do(answer: str, authentication: str, told: str) -> None:
    message = refused("http://h:8265", answer, authentication)
    assert told in message and authentication in message
    assert "RAY_AUTH_MODE=token" in message and "RAY_AUTH_TOKEN_PATH" in message


class Dashboard(http.server.BaseHTTPRequestHandler):
    """A dashboard that knows one job and one token."""

    token = ""
    seen: list[tuple[str, str]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        given = self.headers.get("Authorization")
        if self.token and given is None:
            return self._answer(401, "Unauthorized: Missing authentication token")
        if self.token and given != f"Bearer {self.token}":
            return self._answer(403, "Forbidden: Invalid authentication token")
        if self.path == "/api/version":
            return self._answer(200, json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": ""}))
        if self.path == "/api/jobs/busy":
            return self._answer(503, "later")
        return self._answer(404, "Job does not exist.")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    # Ray settles the mode once per process, and other tests in this one may have settled it
    monkeypatch.setattr("ray._private.authentication.authentication_utils.is_token_auth_enabled", lambda: False)
    Dashboard.token = ""
    Dashboard.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_address_asked_for_wins_over_the_environments(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    jobs = Jobs(dashboard)
    assert jobs.state("unknown") is None
    import os

    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:9"


def test_a_cluster_that_wants_a_token(dashboard: str) -> None:
    Dashboard.token = "right"
    with pytest.raises(ClusterError, match=r"requires a token.*token from nowhere"):
        Jobs(dashboard)


def test_a_server_that_is_busy_is_away(dashboard: str) -> None:
    with pytest.raises(JobsAway, match="takes no job now"):
        Jobs(dashboard).state("busy")
