"""The leaderboard for people: ranks, values with their standard errors, sizes and times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlsearch.cli.console import Table
from tlsearch.cli.progress import format_s
from tlsearch.results.leaderboard import LeaderboardRow
from tlsearch.types import SearchRecord


def results_table(record: SearchRecord, rows: Sequence[LeaderboardRow]) -> Table:
    """One line for each trial, best first; parameters that are equal everywhere are left out.

    ``=2`` is a rank that several trials share. ``~`` marks values within one standard error of the best.
    ``epoch`` is best epoch/epochs run.
    """
    table = Table(title=f"{record.search_id}: {len(record.trials)} trials by best {record.metric}")
    names = _varied(record)
    columns = ["rank", "trial", "ended", "best", "epoch", "time", "parameters"]
    measured = any(row.latency_ms is not None for row in rows)
    columns += ["latency"] if measured else []
    for title in columns:
        table.add_column(title, justify="left" if title == "ended" else "right", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", "\n"), overflow="fold")
    for row in rows:
        latency = [_with_unit(row.latency_ms, " ms")] if measured else []
        table.add_row(
            *_fixed_cells(row),
            *latency,
            *(_cell(row.params.get(name)) for name in names),
            style="bold" if row.trial == (record.best and record.best.number) else None,
        )
    return table


def _fixed_cells(row: LeaderboardRow) -> list[str]:
    rank = "" if row.rank is None else f"={row.rank}" if row.tied else str(row.rank)
    best = "-" if row.best_value is None else f"{row.best_value:.4f}"
    if row.standard_error is not None:
        mark = "~" if row.within_one_se and row.rank != 1 else " "
        best = f"{best} ±{row.standard_error:.4f}{mark}"
    return [
        rank,
        str(row.trial),
        row.reason or row.state,
        best,
        f"{row.best_epoch or '-'}/{row.epochs_run}",
        "-" if row.seconds is None else format_s(row.seconds),
        "-" if row.parameters is None else f"{row.parameters / 1e6:.1f}M",
    ]


def _varied(record: SearchRecord) -> list[str]:
    names = list(dict.fromkeys(name for trial in record.trials for name in trial.params))
    return [n for n in names if len({str(trial.params[n]) for trial in record.trials if n in trial.params}) > 1]


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f}{unit}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if isinstance(value, float) else str(value)
