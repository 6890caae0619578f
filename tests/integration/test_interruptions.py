"""A search that is killed or interrupted goes on: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from homes import Home, need_demo_weights, write_digit_images, write_digit_space

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

TRIALS = 6
MAX_EPOCHS = 3


@pytest.fixture
def home(tmp_path: Path) -> Home:
    need_demo_weights()
    home = Home(tmp_path / "home")
    write_digit_images(home.root / "images", per_class=24)
    write_digit_space(home, trials=TRIALS, max_epochs=MAX_EPOCHS)
    return home


def _wait_for_reports(home: Home, process: subprocess.Popen[str] | None, count: int) -> None:
    """Waits until the study's journal holds so many reports."""
    journal = home.root / "tlsearch_runs" / "cut" / "study.journal"
    deadline = time.monotonic() + 480
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, f"ended too early\n{process.communicate()}"
        if journal.exists() and journal.read_text().count("report:") >= count:
            return
        time.sleep(0.05)  # polls another process's file
    raise AssertionError("no reports in time")


def _assert_whole(home: Home) -> Mapping[str, Any]:
    from mlflow import MlflowClient

    results = json.loads(home.run("results", "cut", "--json"))
    assert sorted(trial["trial"] for trial in results["trials"]) == list(range(TRIALS))
    assert {trial["state"] for trial in results["trials"]} <= {"complete", "pruned"}
    client = MlflowClient(tracking_uri=home.tracking_uri)
    experiment = client.get_experiment_by_name("digit-images")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    kinds = [run.data.tags["tlsearch.kind"] for run in runs]
    assert kinds.count("search") == 1 and kinds.count("trial") == TRIALS
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial in results["trials"]:
        points = client.get_metric_history(trial["mlflow_run_id"], "val_accuracy")
        assert [point.step for point in points] == list(range(trial["epochs_run"] + 1))  # 0: the solved head
    return results


def test_kill_9_between_two_reports_then_resume(home: Home) -> None:
    process = home.start("run", "space.yaml", "--name", "cut")
    _wait_for_reports(home, process, 4)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    home.run("resume", "cut")
    _assert_whole(home)


SIGNALS = {"ctrl-c": signal.SIGINT, "kill": signal.SIGTERM, "hangup": signal.SIGHUP}


@pytest.mark.slow
@pytest.mark.parametrize("how", [*SIGNALS, "stop"])
def test_an_interruption_records_what_was_done_and_can_be_resumed(home: Home, how: str) -> None:
    # What interrupts takes some seconds on a busy machine, in which the search must not end by itself.
    write_digit_space(home, trials=TRIALS, max_epochs=200 if how == "stop" else 60)
    process = home.start("run", "space.yaml", "--name", "cut")
    _wait_for_reports(home, process, 3)
    if how in SIGNALS:  # Ray has a handler of its own for SIGTERM
        process.send_signal(SIGNALS[how])
    else:
        told = json.loads(home.run("status", "cut", "--json"))
        assert told["running"] and told["process"]["pid"] == process.pid and told["running_trials"]
        assert "the search cut has stopped" in home.run("stop", "cut")
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 130, stdout + stderr
    assert "tlsearch resume cut" in stderr and "Traceback" not in stderr
    between = json.loads(home.run("results", "cut", "--json"))
    assert sum(trial["epochs_run"] for trial in between["trials"]) >= 3
    home.run("resume", "cut")
    after = _assert_whole(home)
    ended = {t["trial"]: t for t in between["trials"] if t["state"] != "running"}
    assert {t["trial"]: t for t in after["trials"] if t["trial"] in ended} == ended


@pytest.fixture
def kernel(home: Home) -> Iterator[Any]:
    """A manager of an IPython kernel that runs in the home, with a client."""
    manager_of_kernels = pytest.importorskip("jupyter_client.manager").KernelManager
    pytest.importorskip("ipykernel")
    manager = manager_of_kernels()
    manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.start_kernel(env=home.environment, cwd=str(home.root))
    try:
        yield manager
    finally:
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_search_in_ipython_shows_progress_is_interrupted_and_resumed(home: Home, kernel: Any) -> None:
    write_digit_space(home, trials=TRIALS, max_epochs=4, depth="[2, 3]")  # epochs long enough to be interrupted
    client = kernel.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def cell(code: str) -> str:
        """Runs code; gives what the notebook shows: texts, and tables as plain text."""
        shown: list[str] = []

        def show(message: Mapping[str, Any]) -> None:
            content = message["content"]
            shown.append(content.get("text") or str(content.get("data", content.get("traceback", ""))))

        reply = client.execute_interactive(code, output_hook=show, timeout=500)
        assert reply["content"]["status"] == "ok", shown[-1]
        return "".join(shown)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(cell, "import tlsearch\nsearch = tlsearch.run('space.yaml', name='cut')\nsearch.status")
        _wait_for_reports(home, None, 3)
        kernel.interrupt_kernel()
        shown = done.result()
    assert f"of {TRIALS} trials ended" in shown and "'interrupted'" in shown, shown[-2000:]
    before = int(cell("print(sum(trial.epochs_run for trial in search.trials()))"))
    assert before >= 3
    shown = cell("search = tlsearch.resume(search)\nsearch.status")
    assert f"{TRIALS} of {TRIALS} trials ended" in shown and "'finished'" in shown, shown[-2000:]
    assert int(cell("print(sum(trial.epochs_run for trial in search.trials()))")) > before
    _assert_whole(home)
