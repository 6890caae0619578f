"""The trials of a search as its display follows them: a row for each that runs, and of those that have ended the best.

What is drawn several times a second costs no more late in a long search than at its start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tlsearch.core.types import EpochReport, Objective, SearchRecord, TrialConfig, TrialOutcome, TrialState


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial; ``value`` is that of its last report."""

    config: TrialConfig
    epoch: int = 0
    value: float | None = None
    best: float | None = None


class TrialRows:
    """Follows a search from its events.

    Attributes:
        running: By number the trials that run.
        ended: How many have ended in which state.
    """

    def __init__(self, objective: Objective, *, num_reports: int, folds: bool) -> None:
        """Knows no trial yet.

        Args:
            num_reports: Of a whole trial: its epochs, or folds.
            folds: Whether reports are of folds: a trial that has seen fewer ranks after those that have seen all.
        """
        self._objective, self._num_reports, self._folds = objective, num_reports, folds
        self.running: dict[int, Row] = {}
        self.ended: Counter[TrialState] = Counter()
        self._best_ended: dict[int, Row] = {}  # one at most

    def restore(self, record: SearchRecord) -> None:
        """Takes the trials of earlier starts."""
        for trial in record.trials:
            self.running[trial.number] = Row(config=trial.config, epoch=trial.epochs_run, best=trial.best_value)
            if trial.outcome is not None:
                self.end(trial.number, trial.outcome)

    def start(self, number: int, config: TrialConfig) -> None:
        """A trial starts, or goes on after a resume."""
        self.running[number] = replace(self.running.get(number, Row(config=config)), config=config)

    def report(self, number: int, report: EpochReport) -> Row:
        """The trial's row after an epoch; its best counts the solved head before the first step, too."""
        row, metric = self.running[number], self._objective.metric
        value = report.metrics[metric]
        started = [] if report.start is None else [report.start.metrics[metric]]
        known = [value, *started, *([] if row.best is None else [row.best])]
        best = value if report.folds else max(known, key=self._objective.gain)
        row = self.running[number] = replace(row, epoch=report.epoch, value=value, best=best)
        return row

    def end(self, number: int, outcome: TrialOutcome) -> Row:
        """The trial's last row."""
        row = self.running.pop(number)
        self.ended[outcome.state] += 1
        self._best_ended = dict(self._ranked({**self._best_ended, number: row})[:1])
        return row

    def best(self) -> tuple[int, Row] | None:
        """Number and row of the best trial so far; of equal ones the earlier, None without a report."""
        ranked = self._ranked({**self.running, **self._best_ended})
        return ranked[0] if ranked else None

    def _ranked(self, rows: Mapping[int, Row]) -> list[tuple[int, Row]]:
        return self._objective.ranked(sorted(rows.items()), lambda item: item[1].best, last=self._is_partial)

    def _is_partial(self, item: tuple[int, Row]) -> bool:
        return self._folds and item[1].epoch < self._num_reports
