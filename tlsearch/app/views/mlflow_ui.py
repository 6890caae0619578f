"""The MLflow UI on the store of a search: a server that ends with the command that started it, however that ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.config import with_driver
from tlsearch.core.errors import ClusterError
from tlsearch.core.imports import own_python
from tlsearch.core.trusted_hosts import without_credentials
from tlsearch.core.user_folders import scratch_folder
from tlsearch.tracking.mlflow_database import sqlite_path
from tlsearch.tracking.reach import CREDENTIALS

_POLL_S = 0.2
_END_S = 10.0
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}

# Ends the server's processes when the pipe to this one closes, which it does even after `kill -9`.
_WATCHDOG = """
import os, signal, sys
os.read(0, 1)
try:
    os.killpg(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def serve_ui(entry: SearchEntry, *, host: str, port: int, ready: Callable[[str], None]) -> int:
    """Runs the MLflow server on the search's store until a signal ends this process.

    Args:
        entry: The search, recorded in a store that is not a server.
        host: Address to listen on.
        port: Port to listen on, from 1 to 65535.
        ready: Called with the URL of the experiment's page once the server answers.

    Returns:
        0 after a signal.

    Raises:
        ClusterError: The port cannot be listened on, or the server has ended.
    """
    _check_port(host, port)
    command = own_python("mlflow", "ui", "--host", host, "--port", str(port))
    # By the environment: every user of the machine may read a process's arguments.
    store = {"MLFLOW_BACKEND_STORE_URI": without_credentials(with_driver(entry.tracking_uri))}
    database = sqlite_path(entry.tracking_uri)
    if database is not None:  # by default files of what is made in the UI would go into the current folder
        store["MLFLOW_ARTIFACTS_DESTINATION"] = str(database.parent / "mlartifacts")
    url = f"http://{_bracketed(host)}:{port}"
    reached = f"http://{_bracketed(_WILDCARDS.get(host, host))}:{port}"
    try:
        with scratch_folder("ui") as folder, _server(command, store, folder) as server:
            answers = False
            while server.poll() is None:
                if not answers and _answers(reached):
                    answers = True
                    ready(url + _page(reached, entry.experiment))
                time.sleep(_POLL_S)  # polls another process
    except KeyboardInterrupt:  # as every signal that ends a command comes
        return 0
    raise ClusterError(f"the MLflow UI has ended by itself (exit code {server.returncode}); its own output says why")


def _page(url: str, experiment: str) -> str:
    """The path of an experiment's training runs; without the mode the UI opens as for language models (3.17)."""
    query = urlencode({"experiment_name": experiment})
    try:
        with urllib.request.urlopen(f"{url}/api/2.0/mlflow/experiments/get-by-name?{query}", timeout=5) as answer:
            found = json.load(answer)["experiment"]
    except (OSError, ValueError, KeyError):
        found = {}
    place = f"/{found['experiment_id']}/runs" if found.get("lifecycle_stage") == "active" else ""
    return f"/#/experiments{place}?workflowType=machine_learning"


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
            listening.bind(address)
            listening.listen()
    except OSError as error:
        raise ClusterError(
            f"the UI cannot listen at {host}:{port}: {error.strerror or error}; --port and --host name another place"
        ) from error


@contextmanager
def _server(command: list[str], store: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server, in a process group of its own, and in a folder of its own: its parts import from where they start."""
    # seven more processes of MLflow's, for jobs that only its language-model features have
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ, **store, "PYTHONSAFEPATH": "1"}
    for name in CREDENTIALS:  # a record of the store may name another host for its files
        environment.pop(name, None)
    server = subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True, stdin=subprocess.DEVNULL)
    watching = [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(server.pid)]
    with subprocess.Popen(watching, stdin=subprocess.PIPE, start_new_session=True) as watchdog:
        try:
            yield server
        finally:
            _end(server)
            watchdog.kill()  # before the group's number can be another's


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(_END_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host or "127.0.0.1"
