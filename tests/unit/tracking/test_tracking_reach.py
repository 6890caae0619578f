"""What an MLflow store's answers mean; the server is a stand-in with the real one's answers."""

from __future__ import annotations

import base64
import http.server
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tlsearch.core.trusted_hosts import trust
from tlsearch.tracking.mlflow_database import _revisions
from tlsearch.tracking.reach import credentials_note, refusal, tracking_finding


class Server(http.server.BaseHTTPRequestHandler):
    code, text = 200, "{}"
    headers_seen: list[str | None] = []

    def do_GET(self) -> None:
        self.headers_seen.append(self.headers.get("Authorization"))
        body = self.text.encode()
        self.send_response(self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def uri(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Server, "headers_seen", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://localhost:{server.server_port}"
    trust(uri)
    yield uri
    server.shutdown()
    server.server_close()


def answering(monkeypatch: pytest.MonkeyPatch, code: int, text: str = "{}") -> None:
    monkeypatch.setattr(Server, "code", code)
    monkeypatch.setattr(Server, "text", text)


def test_a_server_that_answers(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 200)
    assert tracking_finding(uri).status == "ok"
    assert Server.headers_seen == [None]


def test_401_without_a_user(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 401, "You are not authenticated.")
    found = tracking_finding(uri)
    assert found.status == "fail"
    assert "requires a user and a password" in found.text
    assert "MLFLOW_TRACKING_USERNAME" in found.advice and "never in the space file" in found.advice


def test_401_with_a_wrong_password(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 401)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "team")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    found = tracking_finding(uri)
    assert "does not know this user or password (401) to 'team'" in found.text
    assert "hunter2" not in str(found)
    assert Server.headers_seen == ["Basic " + base64.b64encode(b"team:hunter2").decode()]


def test_a_user_in_the_address(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As requests, under MLflow's own client, does it: this user comes before the one of the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "other")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other")
    answering(monkeypatch, 401)
    address = uri.replace("//", "//team:hunt%2Fer2@")
    found = tracking_finding(address)
    assert "the user or the password in its address" in found.text and credentials_note(address) == ""
    assert Server.headers_seen == ["Basic " + base64.b64encode(b"team:hunt/er2").decode()]
    portless = tracking_finding("https://team:hunter2@127.0.0.1")
    assert portless.status == "fail" and "nothing answers" in portless.text


def test_403_by_the_host_name(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 403, "Invalid Host header - possible DNS rebinding attack detected")
    found = tracking_finding(uri)
    assert found.status == "fail" and "does not take requests for the name 'localhost:" in found.text
    assert "--allowed-hosts 'localhost,localhost:*'" in found.advice and "127.0.0.1:*" in found.advice


def test_403_by_permission(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 403, "Permission denied")
    found = tracking_finding(uri)
    assert "does not allow this" in found.text and "EDIT" in found.advice


def test_another_server(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 404, "nope")
    assert "is not an MLflow server" in tracking_finding(uri).text


def test_nothing_there() -> None:
    found = tracking_finding("http://127.0.0.1:9")
    assert found.status == "fail" and "nothing answers at http://127.0.0.1:9" in found.text


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    assert "is made by the first search" in tracking_finding(f"sqlite:///{path}").text
    assert not path.exists()  # looked at, not made
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (y)")
        database.execute("CREATE TABLE alembic_version (version_num)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (_revisions()[0],))
        database.commit()
        assert tracking_finding(f"sqlite:///{path}").status == "ok"
        database.isolation_level = None
        database.execute("BEGIN EXCLUSIVE")
    path.write_text("no database at all, and long enough to be read as one" * 30)
    assert tracking_finding(f"sqlite:///{path}").status == "fail"


def test_a_database_url_shows_no_password() -> None:
    found = tracking_finding("postgresql://me:hunter2@db/mlflow")
    assert found.status == "warn" and "hunter2" not in str(found) and "me:***@db" in found.text


def test_a_deleted_experiment_of_a_server(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 200, '{"experiment": {"experiment_id": "7", "name": "a", "lifecycle_stage": "deleted"}}')
    found = refusal(uri, "a")
    assert found is not None and f"'a' (id 7) was deleted in {uri}" in found.text
    answering(monkeypatch, 200, '{"experiment": {"experiment_id": "7", "name": "a", "lifecycle_stage": "active"}}')
    assert refusal(uri, "a") is None
