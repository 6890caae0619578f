"""The driver of a search under a stopwatch, on the virtual clock of a simulation: for many_nodes.py."""

from __future__ import annotations

import argparse
import io
import os
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from costs import report_of
from overhead import resident_mb
from rich.console import Console

from tlsearch.app.searches.execute import Tidier
from tlsearch.core.types import EpochReport, SearchObserver
from tlsearch.display.live_progress import Progress
from tlsearch.forecast.simulation import ControllerSearcher, Start
from tlsearch.results import leaderboard
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.json_logs import TrialTeller
from tlsearch.search.study.study import Study
from tlsearch.tracking import BestKeeper, MlflowTracker, TrackedSearch

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
    """What the driver had spent when the search had begun this number of trials."""

    trials: int
    trial: tuple[float, float, int]
    report: tuple[float, float, int]
    memory_mb: float
    frame_cpu_s: float
    results_cpu_s: float


class MeasuredSearcher(ControllerSearcher):
    """The controller, each of its calls timed."""

    def __init__(self, plan: SearchPlan, study: Study, progress: Progress, options: argparse.Namespace) -> None:
        tracker = MlflowTracker(
            TrackedSearch(
                uri="sqlite:///unused.db",
                experiment="x",
                search_id="x",
                metric="val_accuracy",
                served_code=Path("x.py"),
            )
        )
        tracker._worker.give_up()  # its thread is off the driver's path: it takes no entries here
        keeper = BestKeeper(tracker, directory=plan.folder.root, keep=3, objective=plan.setup.objective)
        recorders: tuple[SearchObserver, ...] = (tracker, keeper, Tidier(keeper, directory=plan.folder.root))
        super().__init__(plan, study, observers=(*recorders, TrialTeller("val_accuracy"), progress))
        self._plan, self._progress = plan, progress
        self._deadline = time.monotonic() + options.limit_s
        self.asking, self.reporting = map(Kind, options.tune_ms, options.wait_ms or (None, None))
        borders = (0, *BORDERS, options.trials)
        self._borders = deque(options.behind + border for border in borders if border <= options.trials)
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
        frame_s, results_s = cpu_of(self._frame), cpu_of(self._results)
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


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds of a call, its child processes included."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])
