"""The trials of a search, best first, as rows, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlsearch.types import Mode, Scalar, SearchRecord, TrialRecord, TrialState


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """One trial.

    Attributes:
        trial: The trial's number.
        state: running, complete, pruned, failed or infeasible.
        params: The active dimensions.
        best_value: The metric at the best epoch; None before the first report.
        best_epoch: From 1.
        epochs_run: The last epoch reported.
        mlflow_run_id: None where MLflow does not know the trial.
        reason: Why it ended; None while it runs.
    """

    trial: int
    state: str
    params: Mapping[str, Scalar]
    best_value: float | None
    best_epoch: int | None
    epochs_run: int
    mlflow_run_id: str | None
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """The row in the published shape."""
        return {
            "trial": self.trial,
            "state": self.state,
            "params": dict(self.params),
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "epochs_run": self.epochs_run,
            "mlflow_run_id": self.mlflow_run_id,
            "reason": self.reason,
        }


def leaderboard(record: SearchRecord, run_ids: Mapping[int, str]) -> list[LeaderboardRow]:
    """All trials of a search, best first.

    Trials that count (complete or pruned, not diverged) come first by their best epoch's value, of equal
    values the earlier trial; then running ones, then the others. So the first row is ``record.best``.

    Args:
        run_ids: MLflow's runs by trial number; may lack trials.
    """
    ranked = sorted(record.trials, key=lambda trial: _rank(trial, record.mode))
    return [_row(trial, run_ids.get(trial.number)) for trial in ranked]


def results_json(record: SearchRecord, run_ids: Mapping[int, str]) -> dict[str, Any]:
    """What ``tlsearch results --json`` prints; ``best`` is a trial's number or None."""
    best = record.best
    return {
        "search_id": record.search_id,
        "experiment": record.experiment,
        "metric": record.metric,
        "mode": record.mode,
        "best": None if best is None else best.number,
        "trials": [row.as_json() for row in leaderboard(record, run_ids)],
    }


def leaderboard_csv(record: SearchRecord, run_ids: Mapping[int, str]) -> str:
    """The leaderboard with one column for each parameter; a cell is empty where a value does not exist."""
    rows = leaderboard(record, run_ids)
    names = sorted({name for row in rows for name in row.params})
    fixed = ["trial", "state", "reason", "best_value", "best_epoch", "epochs_run"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fixed, *names, "mlflow_run_id"])
    for row in rows:
        cells = row.as_json()
        writer.writerow(
            [*(cells[name] for name in fixed), *(row.params.get(name) for name in names), row.mlflow_run_id]
        )
    return text.getvalue()


def _row(trial: TrialRecord, run_id: str | None) -> LeaderboardRow:
    running = trial.state is TrialState.RUNNING
    return LeaderboardRow(
        trial=trial.number,
        state=trial.state.value,
        params=trial.params,
        best_value=trial.best_value,
        best_epoch=trial.best_epoch,
        epochs_run=trial.epochs_run,
        mlflow_run_id=run_id,
        reason=None if running else trial.reason or None,
    )


def _rank(trial: TrialRecord, mode: Mode) -> tuple[int, float, int]:
    """Sorts best first: the trial's group, then its value, then its number."""
    sign = -1.0 if mode == "max" else 1.0
    value = float("inf") if trial.best_value is None else sign * trial.best_value
    return (_group(trial), value, trial.number)


def _group(trial: TrialRecord) -> int:
    if trial.state is TrialState.RUNNING:
        return 1
    counts = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and trial.reason != "diverged"
    return 0 if counts and trial.best_value is not None else 2
