"""What ``run`` and ``resume`` show while they run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tlsearch.cli.console import Table
from tlsearch.text import format_s
from tlsearch.types import METRIC_MODES, Decision, EpochReport, SearchRecord, TrialConfig, TrialOutcome, TrialState

_REFRESHES_PER_S = 4


def short_config(config: TrialConfig) -> str:
    """One trial's configuration in a few words: ``resnet18 depth 2 lr 1.0e-03/2.1e-05 bn train``."""
    rates = f"{config.head_lr:.1e}" + (f"/{config.backbone_lr:.1e}" if config.backbone_lr is not None else "")
    words = [config.backbone, f"depth {config.unfreeze_depth}", f"lr {rates}"]
    if config.bn_policy is not None and config.unfreeze_depth:
        words.append(f"bn {config.bn_policy}")
    if config.augmentation != "none":
        words.append(config.augmentation)
    return " ".join(words)


@dataclass(frozen=True, kw_only=True)
class _Row:
    config: TrialConfig
    epoch: int = 0
    value: float | None = None  # of the last report
    best: float | None = None
    outcome: TrialOutcome | None = None


class Progress:
    """Hears a search (SearchObserver) and shows it; a context manager."""

    def __init__(
        self,
        console: Console,
        *,
        metric: str,
        trials: int,
        max_epochs: int,
        time_budget_s: float | None,
        doing: Callable[[int], str] = lambda number: "",
    ) -> None:
        """Draws nothing yet.

        Args:
            doing: What a trial does before its next epoch; empty where nothing is known.
        """
        self._console = console
        self._metric = metric
        self._sign = 1 if METRIC_MODES[metric] == "max" else -1
        self._trials = trials
        self._max_epochs = max_epochs
        self._time_budget_s = time_budget_s
        self._doing = doing
        self._started = time.monotonic()
        self._rows: dict[int, _Row] = {}
        self._live: Live | None = None
        self._note = ""
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=_REFRESHES_PER_S, get_renderable=self._render)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """Says something beside the table: ``stopping``."""
        self._note = text
        if not self._live:
            self._console.print(text, markup=False, highlight=False)

    def restore(self, record: SearchRecord) -> None:
        """Takes over what an earlier start of the search has done."""
        for trial in record.trials:
            ended = TrialOutcome(state=trial.state, reason=trial.reason, epochs_run=trial.epochs_run)
            running = trial.state is TrialState.RUNNING
            self._rows[trial.number] = _Row(
                config=trial.config, epoch=trial.epochs_run, best=trial.best_value, outcome=None if running else ended
            )

    # --- SearchObserver ---

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """A trial starts, or goes on after a resume."""
        before = self._rows.get(number, _Row(config=config))
        self._rows[number] = replace(before, config=config, outcome=None)

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """An epoch has ended."""
        row = self._rows[number]
        value = report.metrics[self._metric]
        best = value if row.best is None else max(row.best, value, key=lambda v: self._sign * v)
        self._rows[number] = replace(row, epoch=report.epoch, value=value, best=best)

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """A trial has ended; prints its line where there is no live table."""
        row = replace(self._rows[number], outcome=outcome)
        self._rows[number] = row
        if self._live:
            return
        value = "-" if outcome.best_value is None else f"{outcome.best_value:.4f}"
        ended = sum(1 for r in self._rows.values() if r.outcome)
        line = (
            f"[{ended}/{self._trials}] trial {number} {outcome.state.value} ({outcome.reason}) after "
            f"{outcome.epochs_run} epochs: {self._metric} {value}  {short_config(row.config)}"
        )
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        if outcome.error:
            self._console.print(f"    {outcome.error.splitlines()[-1]}", markup=False, highlight=False, soft_wrap=True)

    # --- drawing ---

    def _render(self) -> Group:
        rows = dict(self._rows)
        counts = Counter(r.outcome.state if r.outcome else TrialState.RUNNING for r in rows.values())
        ended = sum(count for state, count in counts.items() if state is not TrialState.RUNNING)
        states = "  ".join(f"{state.value} {counts[state]}" for state in TrialState if counts[state])
        lines = [
            Text(f"{ended} of {self._trials} trials ended   {states}"),
            Text(self._times()),
            Text(self._best(rows)),
        ]
        table = Table(box=None, pad_edge=False)
        for title, align in (("trial", "right"), ("epoch", "right"), (self._metric, "right"), ("best", "right")):
            table.add_column(title, justify=align)  # type: ignore[arg-type]
        table.add_column("configuration")
        for number, row in rows.items():
            if row.outcome is None:
                figures = ["-" if v is None else f"{v:.4f}" for v in (row.value, row.best)]
                what = "  ".join(filter(None, (short_config(row.config), self._doing(number))))
                table.add_row(str(number), f"{row.epoch}/{self._max_epochs}", *figures, what)
        note = [Text(self._note, style="yellow")] if self._note else []
        return Group(*lines, table, *note)

    def _times(self) -> str:
        elapsed = time.monotonic() - self._started
        if self._time_budget_s is None:
            return f"{format_s(elapsed)} elapsed"
        return f"{format_s(elapsed)} elapsed, {format_s(max(self._time_budget_s - elapsed, 0))} left"

    def _best(self, rows: dict[int, _Row]) -> str:
        known = [(number, row) for number, row in rows.items() if row.best is not None]
        if not known:
            return "no report yet"
        number, row = max(known, key=lambda item: self._sign * (item[1].best or 0.0))
        return f"best so far: trial {number} with {self._metric} {row.best:.4f}  {short_config(row.config)}"
