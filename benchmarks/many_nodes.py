#!/usr/bin/env python3
"""How many nodes one driver can serve: a search on 1,000 simulated nodes, its own work real and measured.

    many_nodes.py [--nodes 1000] [--trials 20000] [--epoch-s 60] [--study auto|postgresql|URL] [--profile F] [--quick]

The controller, the sampler, ASHA, the study on its storage and the observers of `tlsearch run` (log, tracker, keeper of
the best models, live table) are the real ones. Nodes are slots on a virtual clock: an epoch takes --epoch-s, give or
take a fifth, and costs nothing. The driver does one thing at a time; each proposal and each report keeps it busy for
the CPU seconds that it took here, the median waiting of its kind (for the disk, or the database; --wait-ms where this
machine is busy), and --tune-ms for Ray Tune's own work. So the lag of a decision is the queue of that one thread;
networks are not in it.

A row for each stretch of trials, so that what grows with the study shows: CPU and waiting of a proposal and of a
report, reports a second if the driver did nothing but work, the lag of decisions at --nodes, the process's memory, and
the CPU of one frame of the live table and of reading the whole study as `tlsearch results` does. `postgresql` starts a
server of its own (initdb and pg_ctl on the PATH). Last, one line of JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import math
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from costs import plan_of, report_of
from overhead import resident_mb
from rich.console import Console

from tlsearch.app.searches.execute import Tidier
from tlsearch.core.types import EpochReport, SearchObserver
from tlsearch.display.live_progress import Progress
from tlsearch.forecast.simulation import ControllerSearcher, Start, simulate
from tlsearch.results import leaderboard
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.json_logs import TrialTeller, logging_to
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.tracking import BestKeeper, MlflowTracker

SUPPORT = Path(__file__).resolve().parents[1] / "tests" / "support"
BORDERS = (1000, 2000, 5000, 10_000, 15_000, 20_000)
_MEDIAN_OF = 301  # the last calls of a kind, of which the waiting is the median: other programs' turns are left out


class Kind:
    """One kind of the driver's work: what its calls cost."""

    def __init__(self, tune_ms: float, wait_ms: float | None) -> None:
        """``wait_ms`` None: the median of what is seen here."""
        self._tune_s, self._wait_s = tune_ms / 1e3, None if wait_ms is None else wait_ms / 1e3
        self._waits: deque[float] = deque(maxlen=_MEDIAN_OF)
        self.cpu_s = self.wait_s = self.last_s = 0.0
        self.count = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Charges the body."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
        self._waits.append(max(0.0, wall_s - cpu_s))
        wait_s = statistics.median(self._waits) if self._wait_s is None else self._wait_s
        self.cpu_s, self.wait_s, self.count = self.cpu_s + cpu_s, self.wait_s + wait_s, self.count + 1
        self.last_s = cpu_s + wait_s + self._tune_s

    def totals(self) -> tuple[float, float, int]:
        return self.cpu_s, self.wait_s, self.count


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Where the search stood when it had begun so many trials."""

    trials: int
    trial: tuple[float, float, int]
    report: tuple[float, float, int]
    memory_mb: float
    frame_cpu_s: float
    results_cpu_s: float


class MeasuredSearcher(ControllerSearcher):
    """The controller, each of its calls timed."""

    def __init__(self, plan: SearchPlan, study: Any, progress: Progress, options: argparse.Namespace) -> None:
        tracker = MlflowTracker(
            uri="sqlite:///unused.db", experiment="x", search_id="x", metric="val_accuracy", served_code=Path("x.py")
        )
        tracker._worker.give_up()  # its thread is off the driver's path: it takes no entries here
        keeper = BestKeeper(tracker, directory=plan.folder.root, keep=3, objective=plan.setup.objective)
        recorders: tuple[SearchObserver, ...] = (tracker, keeper, Tidier(keeper, directory=plan.folder.root))
        super().__init__(plan, study, observers=(*recorders, TrialTeller("val_accuracy"), progress))
        self._plan, self._progress = plan, progress
        self._deadline = time.monotonic() + options.limit_s
        self.asking, self.reporting = map(Kind, options.tune_ms, options.wait_ms or (None, None))
        self._borders = deque(border for border in (0, *BORDERS, options.trials) if border <= options.trials)
        self.marks: list[Mark] = []

    def next(self, now: float) -> Start | None:
        if time.monotonic() > self._deadline:
            return None
        with self.asking.measured():
            start = super().next(now)
        if start is None:
            return None
        while self._borders and start.number + 1 >= self._borders[0]:
            self.mark(self._borders.popleft())
        return replace(start, suggest_s=self.asking.last_s)

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        with self.reporting.measured():
            return super().report(number, report, now)

    def mark(self, trials: int) -> None:
        """Notes where the search stands, and what it costs to look at it; none of that is charged to the driver."""
        frame_s, results_s = cpu_of(self._frame), cpu_of(self._results) if trials else 0.0
        totals = self.asking.totals(), self.reporting.totals()
        memory_mb = resident_mb()
        self.marks.append(
            Mark(
                trials=trials,
                trial=totals[0],
                report=totals[1],
                memory_mb=memory_mb,
                frame_cpu_s=frame_s,
                results_cpu_s=results_s,
            )
        )
        print(f"{trials} trials: {self.marks[-1]}", file=sys.stderr, flush=True)

    def _frame(self) -> None:
        Console(file=io.StringIO(), force_terminal=True, width=120, height=50).print(self._progress._render())

    def _results(self) -> None:
        """In a process of its own, which gives its memory back."""
        child = os.fork()
        if child == 0:
            code = 1
            try:
                leaderboard(read_search(self._plan.folder.root), {})
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0


class StubTrial:
    """Epochs that take about as long as each other; values that rise to a level of the trial's own."""

    def __init__(self, start: Start, epoch_s: float) -> None:
        self._rng = random.Random(start.seed)
        self._level, self._epoch_s = self._rng.uniform(0.3, 0.9), epoch_s

    def opened(self, now: float) -> float:
        return now

    def epoch_end(self, epoch: int, now: float) -> float:
        return now + self._epoch_s * self._rng.uniform(0.8, 1.2)

    def report(self, epoch: int, now: float) -> EpochReport:
        return replace(report_of(epoch, self._level * (1 - 0.5**epoch)), timestamp=now)


def cpu_of(work: Any) -> float:
    """CPU seconds of a call, its child processes included."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


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


def simulated(options: argparse.Namespace, root: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The whole search; a row for each stretch of trials, and the figures of all."""
    plan = plan_of(options, root, scheduler="{asha: {}}")
    study = open_for_writing(plan.folder, attrs=study_attrs(plan), url=plan.search.study)
    lines = (root / "lines.txt").open("w", encoding="utf-8")
    settings = {"metric": "val_accuracy", "trials": options.trials, "num_reports": options.epochs}
    progress = Progress(Console(file=lines, width=120), time_budget_s=None, **settings)
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
        searcher.mark(len(done.trials))
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
    whole = {
        "reports": len(done.lags_s),
        "virtual_s": done.end_s,
        "reports_per_s_at_nodes": len(done.lags_s) / done.end_s,
        "driver_busy": busy_s / done.end_s,
    }
    return rows, whole


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
    parser.add_argument("--limit-s", type=float, default=math.inf, help="no trial begins after this time on the wall")
    parser.add_argument("--profile", type=Path, help="where cProfile's figures of the whole go; they slow it down")
    parser.add_argument("--quick", action="store_true", help="300 trials on 20 nodes: the harness, not a figure")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.trials = 20, 300
    with tempfile.TemporaryDirectory(prefix="tlm-") as folder, study_url(options.study) as options.study:
        os.environ |= {"TLSEARCH_STATE_DIR": f"{folder}/state", "TLSEARCH_CACHE_DIR": f"{folder}/cache"}
        profile = cProfile.Profile(time.process_time) if options.profile else None
        if profile:
            profile.enable()
        rows, whole = simulated(options, Path(folder))
        if profile:
            profile.disable()
            profile.dump_stats(options.profile)
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    print(", ".join(f"{name} {value:.3f}" for name, value in whole.items()))
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    asked = {name: getattr(options, name) for name in ("nodes", "epochs", "epoch_s", "sampler", "tune_ms", "wait_ms")}
    print(json.dumps({"benchmark": "many_nodes", "machine": machine, **asked, "rows": rows, **whole}))


if __name__ == "__main__":
    main()
