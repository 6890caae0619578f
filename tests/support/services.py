"""Servers that a cluster needs beside it, each a test's own: PostgreSQL, MLflow with users, an object store."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A server with one user, ``me``; ``password`` is empty where none is asked for."""

    port: int
    password: str = ""

    def url(self, database: str = "postgres", host: str = "127.0.0.1") -> str:
        """Without the password: libpq takes it from PGPASSWORD."""
        return f"postgresql+psycopg2://me@{host}:{self.port}/{database}"

    def create(self, database: str) -> None:
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="me", password=self.password, dbname="postgres"
        )
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {database}")
        connection.close()


@contextmanager
def postgres_server(*, password: str = "", listen: str = "127.0.0.1") -> Iterator[Postgres]:
    """A PostgreSQL server; skips where there is none."""
    pytest.importorskip("psycopg2")
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("needs PostgreSQL's initdb and pg_ctl")
    root = Path(tempfile.mkdtemp(prefix="tlsearch-pg-"))
    secret = root / "password"
    secret.write_text(password)
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        for path in (root, secret):
            shutil.chown(path, user)
    port = free_port()
    server = ["pg_ctl", "-D", str(root / "data"), "-w", "-l", str(root / "log")]

    def run(*command: str) -> None:
        subprocess.run(command, check=True, user=user, cwd=root, stdout=subprocess.DEVNULL, timeout=240)

    try:
        ways = ["-A", "scram-sha-256", f"--pwfile={secret}"] if password else ["-A", "trust"]
        run("initdb", "-D", str(root / "data"), "-U", "me", *ways)
        if listen != "127.0.0.1":
            with open(root / "data" / "pg_hba.conf", "a", encoding="utf-8") as rules:
                rules.write("host all all 10.0.0.0/8 scram-sha-256\n")
        run(*server, "-o", f"-p {port} -k {root} -c listen_addresses={listen}", "-t", "200", "start")
        try:
            yield Postgres(port=port, password=password)
        finally:
            run(*server, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class TrackingServer:
    """MLflow with basic auth; its log and files are in ``folder``."""

    folder: Path
    port: int
    password: str

    def uri(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}"


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    password: str,
    store: str = "",
    users: str = "",
    artifacts: str = "",
    host: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
) -> Iterator[TrackingServer]:
    """An MLflow server with the user ``admin`` and proxied artifacts; it is up some time after the body begins.

    Args:
        store: Database of runs; a SQLite file in the folder if empty.
        users: Database of users, likewise.
        artifacts: Where files go; the folder if empty.
    """
    pytest.importorskip("flask_wtf")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "basic_auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\nauth_cache_ttl_seconds = 60\n"
        f"database_uri = {users or f'sqlite:///{folder}/users.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--backend-store-uri", store or f"sqlite:///{folder}/runs.db"]
    command += ["--artifacts-destination", artifacts or str(folder / "files")]
    secrets = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "for a test", "MLFLOW_AUTH_ADMIN_PASSWORD": password}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
                **secrets,
                **(environment or {}),
            },
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        yield TrackingServer(folder=folder, port=port, password=password)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_healthy(server: TrackingServer, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{server.uri()}/health", timeout=5)
            return
        except OSError:
            time.sleep(0.5)  # polls another process
    raise AssertionError((server.folder / "server.log").read_text()[-2000:])


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """An S3 server; ``environment`` is what a client needs, its secret too."""

    port: int
    secret: str

    def environment(self, host: str = "127.0.0.1") -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{self.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="tester",
            aws_secret_access_key=self.secret,
        )

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Every file below a folder, and the bucket if it is new."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


@contextmanager
def object_store(*, secret: str, host: str = "127.0.0.1", log: Path | None = None) -> Iterator[ObjectStore]:
    """moto's S3 server, in a process of its own."""
    pytest.importorskip("moto")
    port = free_port()
    with open(log or os.devnull, "wb") as target:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)],
            stdout=target,
            stderr=target,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, "the object store has ended"
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
                break
            time.sleep(0.2)  # polls another process
        yield ObjectStore(port=port, secret=secret)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
