"""What ``run`` and ``resume`` show while they run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING

import psutil
import rich.console
from rich.console import Group
from rich.live import Live
from rich.text import Text

from tlsearch.core.text import about_s, format_s, number_text, plural
from tlsearch.core.types import (
    Decision,
    EpochReport,
    Objective,
    SearchObserver,
    SearchRecord,
    TrialConfig,
    TrialOutcome,
    TrialState,
)
from tlsearch.display.console import NotebookLive, Table
from tlsearch.display.estimate import Estimate
from tlsearch.display.trial_rows import Row, TrialRows

if TYPE_CHECKING:
    from tlsearch.app.checks.planning import ForecastBeside
    from tlsearch.config import SearchSpec

_REFRESHES_PER_S = 4
_WORTH_FORECAST_S = 300.0  # a forecast takes some 10 s of one core: too much for a search that ends soon
_QUIET_S = 60.0  # without a terminal: how long nothing is printed while epochs go on
_MOST_ROWS = 40  # of the table: more than a terminal shows, and each is drawn at every refresh


class Progress(SearchObserver):
    """Shows a search as it runs; a context manager."""

    def __init__(
        self,
        console: rich.console.Console,
        search: SearchSpec,
        *,
        address: str = "local",
        doing: Callable[[int], str] = lambda number: "",
        name: Callable[[int], str] = str,
        forecast: ForecastBeside | None = None,
    ) -> None:
        """Draws nothing yet.

        Args:
            search: What the search goes by.
            address: Of the Ray that it runs on.
            doing: What a trial does before its next epoch; empty where nothing is known.
            name: What a trial is called; by default its number.
            forecast: Of the search, while it is made; None where there is none.
        """
        self.console = console
        self._metric, self._trials, self._time_budget_s = search.metric, search.trials, search.time_budget_s
        self._num_reports, self._unit = search.num_reports, "fold" if search.num_folds else "epoch"
        self._address = address
        self._doing, self._name = doing, name
        self._started = time.monotonic()
        self._spent_before_s = 0.0
        self._first_trial: float | None = None  # when it began in this start
        self._first_report = False
        self._printed = self._started
        self._forecast = forecast
        self._estimate = Estimate(trials=search.trials, num_reports=search.num_reports, forecast=forecast)
        objective, folds = Objective.of(search.metric), search.num_folds > 0
        self._rows = TrialRows(objective, num_reports=search.num_reports, folds=folds)
        self._live: Live | NotebookLive | None = None
        self._note = ""
        if console.is_jupyter:
            self._live = NotebookLive(self._render)
        elif console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, refresh_per_second=_REFRESHES_PER_S, get_renderable=self._render)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start(refresh=True)
        else:
            self._print(self._phase())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if self._forecast is not None:
            self._forecast.stop()

    def note(self, text: str) -> None:
        """Says something beside the table: ``stopping``."""
        self._note = text
        if not self._live:
            self._print(text)

    def forecast_held(self) -> str:
        """How the forecast held, for the end of a search that was not interrupted; empty where there was none.

        The time counts from the start of the process: a forecast does, too.
        """
        forecast = None if self._forecast is None else self._forecast()
        if forecast is None:
            return ""
        wall, took_s = forecast.wall_s, time.time() - psutil.Process().create_time()
        held = "within" if wall.holds(took_s) else "longer than" if took_s > wall.high else "shorter than"
        expected = f"{format_s(wall.low)} to {format_s(wall.high)}, median {format_s(wall.median)}"
        return f"took {format_s(took_s)}, {held} the forecast of {expected}"

    def restore(self, record: SearchRecord) -> None:
        """Takes over what earlier starts of the search have done, and the time they took."""
        self._spent_before_s = record.spent_s
        self._rows.restore(record)
        for trial in record.trials:
            if trial.outcome is not None:
                self._estimate.ended(trial.epochs_run)

    # --- SearchObserver ---

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """A trial starts, or goes on after a resume."""
        self._rows.start(number, config)
        if self._first_trial is None:
            self._first_trial = time.monotonic()
            if not self._live:
                self._print(self._phase())

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """An epoch has ended."""
        row = self._rows.report(number, report)
        self._first_report = True
        self._estimate.reported(time.monotonic(), row.config)
        if not self._live and decision is Decision.CONTINUE and time.monotonic() - self._printed >= _QUIET_S:
            counts = (
                f"{self._ended_text()}; trial {self._name(number)}, {self._unit} {report.epoch}/{self._num_reports}"
            )
            self._print(f"{counts}: {self._metric} {row.value:.4f}; {self._times()}")

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """A trial has ended; prints its line where no live table is shown."""
        row = self._rows.end(number, outcome)
        self._estimate.ended(outcome.epochs_run)
        if self._live:
            return
        value = number_text(outcome.best_value)
        left_s = self._left_s()
        left = "" if left_s is None else f", {about_s(left_s)} left"
        self._print(
            f"[{self._num_ended()}/{self._trials}{left}] trial {self._name(number)} {outcome.state.value} "
            f"({outcome.reason}) after {plural(outcome.epochs_run, self._unit)}: "
            f"{self._metric} {value}  {row.config.short}"
        )
        if outcome.error:
            self._print(f"    {outcome.error.splitlines()[-1]}")

    # --- drawing ---

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        running = dict(self._rows.running)
        counts = {**self._rows.ended, TrialState.RUNNING: len(running)}
        states = "  ".join(f"{state.value} {counts[state]}" for state in TrialState if counts.get(state))
        lines = [
            Text(f"{self._ended_text()}   {states}".rstrip()),
            Text(self._times()),
            Text(self._best() if self._first_report or not self._phase() else self._phase()),
        ]
        note = [Text(self._note, style="yellow")] if self._note else []
        if len(running) > _MOST_ROWS:
            note.insert(0, Text(f"and {len(running) - _MOST_ROWS} more"))
        return Group(*lines, *([self._table(running)] if running else []), *note)

    def _table(self, running: Mapping[int, Row]) -> Table:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", self._unit, self._metric, "best"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("configuration")
        for number, row in islice(running.items(), _MOST_ROWS):
            figures = [number_text(row.value), number_text(row.best)]
            doing = self._doing(number) or ("starting a worker" if self._phase() else "")
            what = "  ".join(filter(None, (row.config.short, doing)))
            table.add_row(self._name(number), f"{row.epoch}/{self._num_reports}", *figures, what)
        return table

    def _phase(self) -> str:
        """What happens before the first report of this start; empty after it."""
        if self._first_report:
            return ""
        if self._first_trial is None:
            where = "" if self._address == "local" else f" on the Ray at {self._address}"
            return f"opening the study and MLflow, starting the search{where}"
        waited = f"  {format_s(time.monotonic() - self._first_trial)}" if self._live else ""
        return f"starting workers, then the first {self._unit} of each{waited}"

    def _num_ended(self) -> int:
        return self._rows.ended.total()

    def _ended_text(self) -> str:
        return f"{self._num_ended()} of {plural(self._trials, 'trial')} ended"

    def _spent_s(self) -> float:
        return self._spent_before_s + time.monotonic() - self._started

    def _left_s(self) -> float | None:
        """Seconds left as far as they are known, at most what the time budget leaves."""
        if self._num_ended() >= self._trials:
            return None
        running = [(row.config, row.epoch) for row in list(self._rows.running.values())]
        left_s = self._estimate.left_s(time.monotonic(), running)
        if self._forecast is not None and left_s is not None and left_s > _WORTH_FORECAST_S:
            self._forecast.begin()
        if left_s is None or self._time_budget_s is None:
            return left_s
        return min(left_s, max(self._time_budget_s - self._spent_s(), 0.0))

    def _times(self) -> str:
        left_s = self._left_s()
        parts = [f"{format_s(self._spent_s())} elapsed", *([] if left_s is None else [f"{about_s(left_s)} left"])]
        if self._time_budget_s is not None:
            rest_s = max(self._time_budget_s - self._spent_s(), 0.0)
            parts.append(f"{format_s(rest_s)} of the time budget of {format_s(self._time_budget_s)} left")
        return ", ".join(parts)

    def _best(self) -> str:
        best = self._rows.best()
        if best is None:
            return "no report yet"
        number, row = best
        return f"best so far: trial {self._name(number)} with {self._metric} {row.best:.4f}  {row.config.short}"
