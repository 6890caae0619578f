"""``mlflow models serve`` on a registered model, as a user starts it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AUDIT = Path(__file__).resolve().parent / "audit"


@contextmanager
def serving(uri: str, *, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The address to which images are sent, on a free port of this machine.

    ``folder`` then holds ``serve.out``, what the server says, and ``serve.log``, its processes and what they import of
    ray and optuna.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **environment,
        "PYTHONPATH": str(AUDIT),
        "TLSEARCH_AUDIT_LOG": str(folder / "serve.log"),
        "TLSEARCH_AUDIT_IMPORTS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # mlflow starts uvicorn by its name
    }
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    said = folder / "serve.out"
    with open(said, "w") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/ping", process, said)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def _wait_for(url: str, process: subprocess.Popen[Any], said: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, said.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)  # polls another process
    raise AssertionError(f"the server did not start in time\n{said.read_text()}")


def ask(address: str, files: Sequence[Path]) -> list[dict[str, Any]]:
    """What the server answers to these images, sent by curl where there is one."""
    body = json.dumps({"inputs": [base64.b64encode(file.read_bytes()).decode() for file in files]})
    header = "Content-Type: application/json"
    if shutil.which("curl"):
        command = ["curl", "-sS", "--fail-with-body", "-H", header, "-d", "@-", address]
        done = subprocess.run(command, input=body, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        answer = done.stdout
    else:
        request = urllib.request.Request(address, body.encode(), dict([header.split(": ")]))
        with urllib.request.urlopen(request, timeout=120) as response:
            answer = response.read().decode()
    predictions: list[dict[str, Any]] = json.loads(answer)["predictions"]
    return predictions


def imported(log: Path) -> tuple[int, list[str]]:
    """How many processes there were, and their imports of ray or optuna."""
    lines = log.read_text().splitlines()
    processes = {line.split(" ", 1)[0] for line in lines if " start" in line}
    return len(processes), [line for line in lines if " import " in line]
