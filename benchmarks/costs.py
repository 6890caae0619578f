#!/usr/bin/env python3
"""What a search costs its driver, its study and MLflow: seconds of CPU and of waiting, for each trial and each report.

    costs.py study [--study auto|URL] [--sampler tpe|random] [--trials 1000] [--epochs 10]
    costs.py mlflow [--auth none|checked|cached] [--trials 30] [--epochs 10]

`study`: the driver's own loop without Ray: hand out a trial, answer its reports, end it; by tenths of the trials, since
proposals cost more the more trials there are. `mlflow`: a server of this benchmark's own on SQLite, and the tracker
that a search uses; CPU of both. `checked` is MLflow's basic auth as it comes, `cached` with auth_cache_ttl_seconds.
CPU seconds hardly depend on what else the machine does; waiting does. Last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tlsearch.core.types import Decision, EndReason, EpochReport, TrialConfig, TrialOutcome
from tlsearch.search import SearchPlan
from tlsearch.search.controller.controller import Controller
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.space import load
from tlsearch.tracking import TrackedSearch

SPACE = """
name: costs
data: {{source: digits}}
weights: {{mobilenet_v2: none, resnet18: none}}
space:
  backbone: [mobilenet_v2, resnet18]
  unfreeze_depth: {{int: [0, 5]}}
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  backbone_lr: {{log: [1.0e-6, 1.0e-2]}}
  bn_policy: [frozen, train]
search:
  {{trials: {trials}, max_epochs: {epochs}, scheduler: {scheduler}, sampler: {sampler}, study: {study}}}
"""
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_macro_f1", "val_balanced_accuracy")
USERS = "[mlflow]\ndefault_permission = READ\nadmin_username = admin\ndatabase_uri = sqlite:///{folder}/users.db\n"


class Clock:
    """CPU of this process and time on the wall, of many short stretches."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.cpu_s += time.process_time() - self._cpu
        self.wall_s += time.perf_counter() - self._wall

    def per(self, count: int) -> dict[str, float]:
        return {"cpu_ms": self.cpu_s / count * 1e3, "wall_ms": self.wall_s / count * 1e3}


def report_of(epoch: int, value: float) -> EpochReport:
    return EpochReport(epoch=epoch, metrics=dict.fromkeys(METRICS, value), timestamp=time.time())


def plan_of(options: argparse.Namespace, root: Path, *, scheduler: str) -> SearchPlan:
    """A search in a folder, as the options ask for it."""
    path = root / "space.yaml"
    asked = {"trials": options.trials, "epochs": options.epochs, "sampler": options.sampler}
    text = SPACE.format(**asked, scheduler=scheduler, study=json.dumps(options.study))
    path.write_text(text, encoding="utf-8")
    file, space = load(path)
    name = f"costs-{secrets.token_hex(4)}"
    return SearchPlan(
        search_id=name,
        experiment="costs",
        directory=str(root / name),
        space=space,
        setup=file.trial_setup(),
        search=file.search,
        resources=file.resources,
    )


def study_costs(options: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """The controller driven by hand; by tenths of the trials."""
    plan = plan_of(options, root, scheduler="none")
    study = open_for_writing(plan.folder, attrs=study_attrs(plan), url=plan.search.study)
    controller = Controller(plan, study)
    rows: list[dict[str, Any]] = []
    tenth = max(1, options.trials // 10)
    for start in range(0, options.trials, tenth):
        asking, reporting = Clock(), Clock()
        for _ in range(tenth):
            with asking:
                handout = controller.next_trial()
            assert handout is not None
            number = handout.assignment.number
            for epoch in range(1, options.epochs + 1):
                report = report_of(epoch, (number * 7919 % 1000) / 2000 * (1 - 0.5**epoch))
                with reporting:
                    controller.report(number, report)
        rows.append(
            {"trials": start + tenth, "trial": asking.per(tenth), "report": reporting.per(tenth * options.epochs)}
        )
        trial, report = (_shown(rows[-1][name]) for name in ("trial", "report"))
        print(f"up to {start + tenth:5} trials: {trial} a trial, {report} a report", flush=True)
    study.close()
    return rows


@contextmanager
def server(root: Path, auth: str) -> Iterator[tuple[str, Any]]:
    """An MLflow server; gives its address and its process."""
    import psutil

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{root}/runs.db", "--artifacts-destination", str(root / "files")]
    if auth != "none":
        password = os.environ["MLFLOW_TRACKING_PASSWORD"] = secrets.token_hex(16)
        os.environ |= {
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_AUTH_CONFIG_PATH": str(root / "users.ini"),
        }
        cached = "auth_cache_ttl_seconds = 60\n" if auth == "cached" else ""
        (root / "users.ini").write_text(USERS.format(folder=root) + cached, encoding="utf-8")
        command += ["--app-name", "basic-auth"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, cwd=root)
    try:
        while process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def mlflow_costs(options: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """One search's records through the tracker into a server."""
    from tlsearch.tracking import MlflowTracker

    def cpu_s() -> float:
        every = [process, *process.children(recursive=True)]
        return sum(one.cpu_times().user + one.cpu_times().system for one in every)

    with server(root, options.auth) as (uri, process):
        served = root / "served.py"
        served.write_text("", encoding="utf-8")
        tracker = MlflowTracker(
            TrackedSearch(uri=uri, experiment="costs", search_id="costs", metric="val_accuracy", served_code=served)
        )
        tracker.search_started({}, {})
        tracker.flush(300.0)
        idle = -1.0
        while cpu_s() - idle > 0.05:  # the server goes on starting after its first answer
            idle = cpu_s()
            time.sleep(3)
        before, own, started = cpu_s(), time.process_time(), time.perf_counter()
        for number in range(options.trials):
            tracker.trial_started(number, TrialConfig(backbone="resnet18"))
            for epoch in range(1, options.epochs + 1):
                tracker.trial_reported(number, report_of(epoch, 0.5), Decision.CONTINUE)
            outcome = TrialOutcome(
                reason=EndReason.COMPLETED,
                epochs_run=options.epochs,
                best_value=0.5,
                best_epoch=1,
            )
            tracker.trial_ended(number, outcome)
        assert tracker.flush(3600.0), "the server did not take all"
        wall_s, client_s, server_s = time.perf_counter() - started, time.process_time() - own, cpu_s() - before
        tracker.close()
    count = options.trials * options.epochs
    row = {
        "auth": options.auth,
        "reports": count,
        "trials": options.trials,
        "server_cpu_ms_per_report": server_s / count * 1e3,
        "client_cpu_ms_per_report": client_s / count * 1e3,
        "wall_ms_per_report": wall_s / count * 1e3,
    }
    print(
        ", ".join(
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )
    )
    return [row]


def _shown(figures: dict[str, float]) -> str:
    return f"{figures['cpu_ms']:.2f} ms of CPU ({figures['wall_ms']:.2f} ms)"


def main() -> None:
    """One of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("study", "mlflow"))
    parser.add_argument("--study", default="auto")
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--auth", choices=("none", "checked", "cached"), default="none")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tlc-") as folder:
        os.environ |= {"TLSEARCH_STATE_DIR": f"{folder}/state", "TLSEARCH_CACHE_DIR": f"{folder}/cache"}
        rows = (study_costs if options.what == "study" else mlflow_costs)(options, Path(folder))
    print(json.dumps({"what": options.what, "rows": rows}))


if __name__ == "__main__":
    main()
