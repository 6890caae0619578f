#!/usr/bin/env python3
"""How many nodes one driver can serve: a search on 1,000 simulated nodes, its own work real and measured.

    many_nodes.py [--nodes 1000] [--trials 20000] [--behind 0] [--epoch-s 60] [--study auto|postgresql|URL] [--quick]

The controller, the sampler, ASHA, the study on its storage and the observers of `tlsearch run` (log, tracker, keeper of
the best models, live table) are the real ones. Nodes are slots on a virtual clock: an epoch takes --epoch-s, give or
take a fifth, and costs nothing. The driver does one thing at a time; each proposal and each report keeps it busy for
the CPU seconds that it took here, the median waiting of its kind (for the disk, or the database; --wait-ms where this
machine is busy), and --tune-ms for Ray Tune's own work. So the lag of a decision is the queue of that one thread;
networks are not in it.

A row for each stretch of trials, so that what grows with the study shows: CPU and waiting of a proposal and of a
report, reports a second if the driver did nothing but work, the lag of decisions at --nodes, the process's memory, and
the CPU of one frame of the live table and of reading the whole study as `tlsearch results` does. --behind begins with a
study that holds this number of ended trials, copies of those of a short search: a late row without the way there.
`postgresql` starts a server of its own (initdb and pg_ctl on the PATH). Last, one line of JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from costs import plan_of
from measured_driver import Mark, MeasuredSearcher, StubTrial
from rich.console import Console

from tlsearch.config import SearchSpec
from tlsearch.display.live_progress import Progress
from tlsearch.forecast.simulation import ControllerSearcher, simulate
from tlsearch.search.json_logs import logging_to
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.study.study import Study

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "support"


@contextmanager
def study_url(asked: str) -> Iterator[str]:
    """Where the study is to be; a server of this benchmark's own for ``postgresql``."""
    if asked != "postgresql":
        yield asked
        return
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        raise SystemExit("--study postgresql starts a server: put PostgreSQL's initdb and pg_ctl on the PATH")
    sys.path.insert(0, str(SUPPORT))
    from services import postgres_server

    with postgres_server() as server:
        yield server.url()


def fill(study: Study, options: argparse.Namespace, root: Path) -> None:
    """Has a study of ``options.behind`` trials succeed this one; no two have the same configuration."""
    few = argparse.Namespace(**{**vars(options), "trials": 200})
    (root / "few").mkdir()
    searcher = ControllerSearcher(plan_of(few, root / "few", scheduler="{asha: {}}"))
    simulate(searcher, lambda start: StubTrial(start, options.epoch_s), slots=20, keep_reports=False)
    ended, copies = searcher.study.trials(), []
    for number in range(options.behind):
        trial = copy.copy(ended[number % len(ended)])
        config = trial.user_attrs["config"]
        rate = config["head_lr"] * (1 + number * 1e-7)
        trial.user_attrs = {**trial.user_attrs, "config": {**config, "head_lr": rate}}
        copies.append(trial)
    study.succeed(copies)


def simulated(options: argparse.Namespace, root: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The whole search; a row for each stretch of trials, and the figures of all."""
    whole = argparse.Namespace(**{**vars(options), "trials": options.behind + options.trials})
    plan = plan_of(whole, root, scheduler="{asha: {}}")
    study = open_for_writing(plan.folder, attrs=study_attrs(plan), url=plan.search.study)
    if options.behind:
        fill(study, options, root)
        study.close()
        study = open_for_writing(plan.folder, attrs=study_attrs(plan), url=plan.search.study)
    lines = (root / "lines.txt").open("w", encoding="utf-8")
    progress = Progress(Console(file=lines, width=120), SearchSpec(trials=options.trials, max_epochs=options.epochs))
    with ExitStack() as stack:
        stack.enter_context(logging_to(plan.folder.log, search=plan.search_id))
        searcher = MeasuredSearcher(plan, study, progress, options)
        done = simulate(
            searcher,
            lambda start: StubTrial(start, options.epoch_s),
            slots=options.nodes,
            answer_s=lambda: searcher.reporting.last_s,
            keep_reports=False,
        )
        searcher.mark(options.behind + len(done.trials))
    study.close()
    rows = [
        row_of(before, after, done.lags_s, options)
        for before, after in zip(searcher.marks, searcher.marks[1:], strict=False)
        if after.trials > before.trials
    ]
    busy_s = sum(sum(kind.totals()[:2]) for kind in (searcher.asking, searcher.reporting))
    busy_s += sum(
        ms / 1e3 * count for ms, count in zip(options.tune_ms, (len(done.trials), len(done.lags_s)), strict=True)
    )
    figures = {
        "reports": len(done.lags_s),
        "virtual_s": done.end_s,
        "reports_per_s_at_nodes": len(done.lags_s) / done.end_s,
        "driver_busy": busy_s / done.end_s,
    }
    return rows, figures


def row_of(before: Mark, after: Mark, lags_s: tuple[float, ...], options: argparse.Namespace) -> dict[str, Any]:
    """What the trials between two marks cost."""
    trials, reports = after.trials - before.trials, after.report[2] - before.report[2]
    asked = [(late - early) / trials * 1e3 for early, late in zip(before.trial[:2], after.trial[:2], strict=True)]
    said = [(late - early) / reports * 1e3 for early, late in zip(before.report[:2], after.report[:2], strict=True)]
    busy_ms = (sum(asked) + options.tune_ms[0]) * trials + (sum(said) + options.tune_ms[1]) * reports
    lags = sorted(lags_s[before.report[2] : after.report[2]])
    return {
        "trials": after.trials,
        "trial_cpu_ms": asked[0],
        "trial_wait_ms": asked[1],
        "report_cpu_ms": said[0],
        "report_wait_ms": said[1],
        "most_reports_per_s": 1e3 * reports / busy_ms,
        "lag_p50_ms": 1e3 * lags[len(lags) // 2],
        "lag_p99_ms": 1e3 * lags[len(lags) * 99 // 100],
        "memory_mb": after.memory_mb,
        "frame_cpu_ms": 1e3 * after.frame_cpu_s,
        "results_cpu_s": after.results_cpu_s,
    }


def main() -> None:
    """Runs the search, prints its table and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=10, help="at most, of a trial; ASHA ends most earlier")
    parser.add_argument("--epoch-s", type=float, default=60.0)
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--study", default="auto", help="auto: a journal; postgresql: a server of its own; or a URL")
    parser.add_argument(
        "--tune-ms", type=float, nargs=2, default=(0.0, 0.0), help="Ray Tune's own CPU: of a trial, of a report"
    )
    parser.add_argument(
        "--wait-ms", type=float, nargs=2, help="waiting of a trial and of a report, as an idle machine shows it"
    )
    parser.add_argument("--behind", type=int, default=0, help="ended trials that the study holds already; of a journal")
    parser.add_argument("--limit-s", type=float, default=math.inf, help="no trial begins after this time on the wall")
    parser.add_argument("--quick", action="store_true", help="300 trials on 20 nodes: the harness, not a figure")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.trials = 20, 300
    with tempfile.TemporaryDirectory(prefix="tlm-") as folder, study_url(options.study) as options.study:
        os.environ |= {"TLSEARCH_STATE_DIR": f"{folder}/state", "TLSEARCH_CACHE_DIR": f"{folder}/cache"}
        rows, whole = simulated(options, Path(folder))
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    print(", ".join(f"{name} {value:.3f}" for name, value in whole.items()))
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    asked = {name: getattr(options, name) for name in ("nodes", "epochs", "epoch_s", "sampler", "tune_ms", "wait_ms")}
    print(json.dumps({"benchmark": "many_nodes", "machine": machine, **asked, "rows": rows, **whole}))


if __name__ == "__main__":
    main()
