"""Which hosts get this user's credentials; servers on this machine record what they are sent."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tlsearch.core.trusted_hosts import is_trusted, origin, trust, without_credentials
from tlsearch.core.types import RecordedSearch
from tlsearch.tracking import find_run_ids
from tlsearch.tracking.mlflow_database import Away
from tlsearch.tracking.mlflow_store import connect
from tlsearch.tracking.reach import credentials_note, tracking_finding

SECRETS = ("hunter2x", "tokenTOKEN", "aHVudGVy", "YW5uOmh1bnRlcjJ4", "netrc9pw", "filed-pw")


@dataclass(kw_only=True)
class Host:
    """A host, and the header fields of all requests to it."""

    port: int = 0
    seen: list[Mapping[str, str]] = field(default_factory=list)
    location: str = ""

    def uri(self, name: str = "127.0.0.1") -> str:
        return f"http://{name}:{self.port}"

    @property
    def secrets(self) -> list[str]:
        text = "\n".join(value for headers in self.seen for value in headers.values())
        return [one for one in SECRETS if one in text] + ["Authorization"] * ("Authorization" in str(self.seen))


@contextmanager
def hosting() -> Iterator[Host]:
    host = Host()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.seen.append(dict(self.headers.items()))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(302 if host.location else 401)
            if host.location:
                self.send_header("Location", host.location + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting() as one:
        yield one


@pytest.fixture
def other() -> Iterator[Host]:
    with hosting() as one:
        yield one


@pytest.fixture(params=["environment", "token", "file", "netrc", "everything"])
def credentials(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This user's, in each place where MLflow or what it is made of looks."""
    for name in ("USERNAME", "PASSWORD", "TOKEN", "AUTH", "AWS_SIGV4"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("NO_PROXY", "*")
    kind = str(request.param)
    if kind in ("environment", "everything"):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2x")
    if kind in ("token", "everything"):
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tokenTOKEN")
    if kind in ("file", "everything"):
        (tmp_path / ".mlflow").mkdir()
        text = "[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = filed-pw\n"
        (tmp_path / ".mlflow" / "credentials").write_text(text)
    if kind in ("netrc", "everything"):
        (tmp_path / "netrc").write_text("default login ann password netrc9pw\n")
    return kind


def ask(uri: str) -> None:
    """All ways in which a command speaks to a store, and a record of a store leads on."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    tracking_finding(uri, "x")
    find_run_ids(RecordedSearch(uri=uri, experiment="x", search_id="s"))
    client = connect(uri)
    for call in (client.search_registered_models, lambda: client.create_experiment("x")):
        with pytest.raises(Exception, match="401|302"):
            call()
    for location in (f"{uri}/files", uri.replace("http", "mlflow-artifacts") + "/files"):
        with pytest.raises(Exception, match="."):
            get_artifact_repository(location, tracking_uri=uri).list_artifacts()


def test_a_host_that_only_a_file_names_gets_no_credentials(host: Host, credentials: str) -> None:
    ask(host.uri())
    assert len(host.seen) >= 5 and host.secrets == []
    found = tracking_finding(host.uri(), "x")
    assert "gets none" in found.text and f"MLFLOW_TRACKING_URI={host.uri()}" in found.advice
    assert credentials_note(host.uri()) == ""


@pytest.mark.parametrize("credentials", ["environment", "file", "token"], indirect=True)
def test_a_host_that_the_user_names_gets_them(host: Host, credentials: str) -> None:
    trust(host.uri())
    ask(host.uri())
    assert all("Authorization" in headers for headers in host.seen)
    assert credentials_note(host.uri()).startswith(f"this user's MLflow credentials go to {host.uri()}")


@pytest.mark.parametrize("credentials", ["everything"], indirect=True)
def test_a_store_of_the_user_leads_no_credentials_elsewhere(host: Host, other: Host, credentials: str) -> None:
    trust(host.uri())
    host.location = other.uri("localhost")
    ask(host.uri())
    assert host.secrets and other.seen == []  # a redirection is followed by nobody
    ask(other.uri("localhost"))  # files of a run may be said to be there
    assert other.seen and other.secrets == []


def test_what_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_trusted("sqlite:///x.db") and is_trusted("databricks://me") and is_trusted("auto")
    assert not is_trusted("http://a.org") and not is_trusted("postgresql://me@a.org/x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://u:p@A.org/path")
    monkeypatch.setenv("TLSEARCH_TRUSTED_STORES", "postgresql://b.org/x, mysql://c.org:3307")
    assert (
        is_trusted("https://a.org:443/other")
        and not is_trusted("http://a.org")
        and not is_trusted("https://a.org:8443")
    )
    assert is_trusted("postgresql+psycopg2://me:pw@b.org:5432/y") and is_trusted("mysql+pymysql://c.org:3307/x")
    assert not is_trusted("https://a.org@evil.org/") and not is_trusted("https://a.org.evil.org")
    assert not is_trusted("postgresql://b.org/x?host=evil.org") and not is_trusted("mysql://c.org")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://h", "http://h:80"),
        ("HTTPS://u:p@H.org:5000/a?b=c", "https://h.org:5000"),
        ("http://[::1]:5000/x", "http://[::1]:5000"),
        ("postgres://u@h1:1,h2:2/db", "postgresql://h1:1,h2:2"),
        ("postgresql+psycopg2://me:pw@/db?host=h", "postgresql://:5432?host=h"),
        ("http://[bad", "http://?"),
        ("s3://bucket/x", ""),
    ],
)
def test_an_origin(uri: str, expected: str) -> None:
    assert origin(uri) == expected


def test_a_database_that_only_a_file_names_is_opened_without_passwords() -> None:
    url = "postgresql+psycopg2://me@evil.org/db?passfile=/home/me/secrets"
    assert without_credentials(url) == "postgresql+psycopg2://me@evil.org/db?password=none&passfile=/dev/null"
    own = "postgresql+psycopg2://me:theirs@evil.org/db?service=mine"
    assert without_credentials(own) == "postgresql+psycopg2://me:theirs@evil.org/db?passfile=/dev/null"
    assert (
        without_credentials("mysql+pymysql://evil.org/db?read_default_file=~/.my.cnf") == "mysql+pymysql://evil.org/db"
    )
    trust(url)
    assert without_credentials(url) == url
    assert without_credentials("sqlite:///x.db?mode=ro") == "sqlite:///x.db?mode=ro"


def test_libpq_is_given_nothing_to_look_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that asks for a password in clear text gets neither PGPASSWORD nor a line of ~/.pgpass."""
    pytest.importorskip("psycopg2")
    import socket

    monkeypatch.setenv("PGPASSWORD", "hunter2x")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    (tmp_path / "pgpass").write_text("*:*:*:*:filed-pw\n")
    (tmp_path / "pgpass").chmod(0o600)
    got = b""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            nonlocal got
            connection, _ = listening.accept()
            with connection:
                while b"user" not in got:
                    got += connection.recv(1000)
                    if got.endswith(b"\x04\xd2\x16\x2f"):  # asks for TLS
                        connection.sendall(b"N")
                connection.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")  # a password in clear text
                got += connection.recv(1000)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(Away, match="does not answer"):
            connect(f"postgresql://me@127.0.0.1:{listening.getsockname()[1]}/db?gssencmode=disable")
        thread.join(30)
    assert b"user" in got and b"none" in got and b"hunter2x" not in got and b"filed-pw" not in got
