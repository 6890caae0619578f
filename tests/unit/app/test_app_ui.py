"""The UI's server: its port, its URL, and its end with the command that started it. MLflow's place is taken."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from default_signals import default_signals
from services import free_port
from typer.testing import CliRunner

from tlsearch.app.catalog import catalog
from tlsearch.app.views import mlflow_ui
from tlsearch.cli.root import app
from tlsearch.core import user_folders

_WAIT_S = 240  # for other processes, on a machine that has no time

# A server with a child of its own, as MLflow's has, which tells its process numbers.
_SERVER = """
import http.server, os, subprocess, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".commands", "w") as file:
    for pid in (os.getpid(), os.getppid(), child.pid):
        file.write(open(f"/proc/{pid}/cmdline").read() + "\\n")
    file.write("store: " + os.environ["MLFLOW_BACKEND_STORE_URI"] + "\\n")
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid} {os.getcwd()}")
os.replace(sys.argv[1] + ".new", sys.argv[1])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Health).serve_forever()
"""
_COMMAND = """
import sys
from tlsearch.app.views import mlflow_ui as ui
place, port = sys.argv[1], int(sys.argv[2])
ui.own_python = lambda *arguments: [sys.executable, "-c", {server!r}, place, str(port), *arguments]
sys.argv = ["tlsearch", "ui", "--port", str(port)]
from tlsearch.cli import main
main()
"""


@pytest.fixture
def entry(tmp_path: Path) -> catalog.SearchEntry:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    made = catalog.SearchEntry(
        search_id="one",
        experiment="emoji",
        directory=str(tmp_path / "runs" / "one"),
        source="space.yaml",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        metric="val_accuracy",
        created=1.0,
    )
    catalog.register(made)
    return made


def _until(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)  # polls another process


@pytest.fixture
def served(entry: catalog.SearchEntry, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command, whose server answers, and its port."""
    port = free_port()
    command = [sys.executable, "-c", _COMMAND.format(server=_SERVER), str(tmp_path / "pids"), str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=default_signals
    ) as process:
        try:
            yield process, port
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_server_ends_with_the_command(
    number: signal.Signals, served: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, port = served
    assert process.stdout is not None
    assert process.stdout.readline() == (
        f"experiment 'emoji' at http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)\n"
    )
    socket.create_connection(("127.0.0.1", port)).close()  # the URL is told when it answers
    *pids, folder = (tmp_path / "pids").read_text().split(" ")
    assert folder != str(tmp_path)  # it must not import from where the user stands
    os.kill(process.pid, number)
    _until(lambda: not any(psutil.pid_exists(int(pid)) and _alive(int(pid)) for pid in pids))
    code = process.wait()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_has_the_store_among_its_arguments(entry: catalog.SearchEntry, tmp_path: Path) -> None:
    store = "postgresql+psycopg2://me:s3cret@db.example.org/mlflow"
    catalog.register(replace(entry, tracking_uri=store), own=[store])
    port = free_port()
    command = [sys.executable, "-c", _COMMAND.format(server=_SERVER), str(tmp_path / "pids"), str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=default_signals
    ) as process:
        try:
            assert process.stdout is not None and "http://127.0.0.1" in process.stdout.readline()
            watchdogs = [" ".join(one.cmdline()) for one in psutil.Process(process.pid).children(recursive=True)]
        finally:
            process.terminate()
    *commands, seen = (tmp_path / "pids.commands").read_text().splitlines()
    assert seen == f"store: {store}"
    assert len(watchdogs) >= 2 and "s3cret" not in " ".join([*commands, *watchdogs])
    assert (entry.path / "search.json").stat().st_mode & 0o077 == 0
    assert not any("s3cret" in one.read_text() for one in user_folders.state_directory().glob("*.json"))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_port_that_is_taken_is_refused(entry: catalog.SearchEntry) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = CliRunner().invoke(app, ["ui", "--port", str(port)])
    assert done.exit_code == 1
    assert f"the UI cannot listen at 127.0.0.1:{port}: Address already in use; --port" in done.stderr
    assert "http://" not in done.output


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_that_is_not_this_machines_is_refused(host: str, entry: catalog.SearchEntry) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    done = CliRunner().invoke(app, ["ui", "--host", host])
    assert done.exit_code == 1 and f"the UI cannot listen at {host}:5000: " in done.stderr


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http"])
def test_what_is_no_port_is_a_wrong_command_line(port: str, entry: catalog.SearchEntry) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    assert CliRunner().invoke(app, ["ui", "--port", port]).exit_code == 2


def test_a_server_that_ends_by_itself_is_a_failure(entry: catalog.SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    import tlsearch.cli.commands  # noqa: F401  # its modules add their commands

    monkeypatch.setattr(
        "tlsearch.app.views.mlflow_ui.own_python", lambda *arguments: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    done = CliRunner().invoke(app, ["ui", "--port", str(free_port())])
    assert done.exit_code == 1 and "has ended by itself (exit code 3)" in done.stderr


@pytest.mark.parametrize(
    ("answer", "page"),
    [
        ('{"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}}', "/#/experiments/7/runs"),
        ('{"experiment": {"experiment_id": "7", "lifecycle_stage": "deleted"}}', "/#/experiments"),
        ("", "/#/experiments"),
    ],
)
def test_the_page_is_that_of_the_experiments_training_runs(
    answer: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answered(url: str, timeout: float) -> io.StringIO:
        asked.append(url)
        return io.StringIO(answer)

    monkeypatch.setattr(mlflow_ui.urllib.request, "urlopen", answered)
    assert mlflow_ui._page("http://h:1", "a & b") == f"{page}?workflowType=machine_learning"
    assert asked == ["http://h:1/api/2.0/mlflow/experiments/get-by-name?experiment_name=a+%26+b"]
