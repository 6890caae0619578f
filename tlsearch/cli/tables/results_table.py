"""The leaderboard for people: ranks, values with their standard errors, sizes, times and parameters.

Where the console is wide enough, each parameter has a column; else the parameters of a trial stand on lines of
their own below it, and what matters least is left out.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tlsearch.core.printable import printable
from tlsearch.core.text import format_s, number_text, plural
from tlsearch.core.types import SearchRecord
from tlsearch.display.console import Table
from tlsearch.results.leaderboard.front_rows import cost_label, front_rows, front_title
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, number_forms

if TYPE_CHECKING:
    from tlsearch.results.combine.alternatives import Alternative

_EXPENDABLE = ("time", "size", "latency", "ended")  # left out in this order where the terminal is too narrow
_GAP = "  "
_INDENT = 6


@dataclass(frozen=True, kw_only=True)
class _Line:
    cells: Mapping[str, str]
    params: Mapping[str, str]
    best: bool


def print_leaderboard(console: Console, record: SearchRecord, rows: Sequence[LeaderboardRow]) -> None:
    """Prints one entry for each row, in the order given; parameters that are equal in all trials are left out.

    ``=2`` is a rank that several trials share. ``~`` marks values within one standard error of the best. ``epoch``
    is best epoch/epochs run, ``size`` the number of the model's parameters.
    """
    lines, names = _lines(record, rows), _shown_parameters(record)
    console.print(Text(printable(_title(record, len(rows))), style="italic"), soft_wrap=True)
    for left_out in ((), ("time",), ("time", "size")):
        table = _wide(lines, names, left_out)
        if console.measure(table, options=console.options.update(max_width=100_000)).maximum <= console.width:
            console.print(table)
            return
    for line in _folded(lines, names, console.width):
        console.print(line, soft_wrap=True)


def print_front(console: Console, record: SearchRecord) -> None:
    """Prints the trials that no other one beats in metric and cost, the cheapest first; nothing for one objective."""
    rows = front_rows(record)
    if not rows:
        return
    table = Table()
    for head in ("trial", record.metric, cost_label(record)):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("model")
    for row in rows:
        cells = (str(row.trial), f"{row.value:.4f}", row.cost_text, printable(row.model))
        table.add_row(*map(Text, cells), style="bold" if row.best else None)
    console.print(Text(front_title(record), style="italic"), soft_wrap=True)
    console.print(table)


def _title(record: SearchRecord, shown: int) -> str:
    total = len(record.trials)
    count = plural(total, "trial") if shown == total else f"{shown:,} of {plural(total, 'trial')}"
    return f"{record.search_id}: {count} by best {record.metric}"


def _lines(record: SearchRecord, rows: Sequence[LeaderboardRow]) -> list[_Line]:
    forms, best = number_forms(record), record.best
    return [
        _Line(
            cells=_fixed_cells(row),
            params={name: printable(forms[name].text(value)) for name, value in row.params.items()},
            best=best is not None and row.trial == best.number,
        )
        for row in rows
    ]


def _fixed_cells(row: LeaderboardRow) -> dict[str, str]:
    best = number_text(row.best_value)
    if row.standard_error is not None:
        best = f"{best} ±{row.standard_error:.4f}{'~' if row.within_one_se and row.rank != 1 else ' '}"
    cells = {
        "rank": row.rank_text,
        "trial": str(row.trial),
        "best": best,
        "epoch": f"{'-' if row.best_epoch is None else row.best_epoch}/{row.epochs_run}",
        "ended": row.reason or row.state,
        "time": "-" if row.seconds is None else format_s(row.seconds, tenths=True),
        "size": "-" if row.parameters is None else f"{row.parameters / 1e6:.1f}M",
    }
    return cells if row.latency_ms is None else {**cells, "latency": f"{row.latency_ms:.1f} ms"}


def _shown_parameters(record: SearchRecord) -> list[str]:
    """Parameters with more than one value, in the space's order; all of them where none has."""
    names = list(dict.fromkeys(name for trial in record.trials for name in trial.params))
    values = {name: {str(trial.params[name]) for trial in record.trials if name in trial.params} for name in names}
    return [name for name in names if len(values[name]) > 1] or names


def _heads(lines: Sequence[_Line]) -> list[str]:
    return list(dict.fromkeys(head for line in lines for head in line.cells))


def _wide(lines: Sequence[_Line], names: Sequence[str], left_out: Sequence[str]) -> Table:
    """A column for each parameter, its name on as many lines as it has words."""
    table = Table()
    heads = [head for head in _heads(lines) if head not in left_out]
    for head in heads:
        table.add_column(head, justify="left" if head == "ended" else "right", no_wrap=True)
    for name in names:
        table.add_column(Text(name.replace("_", "\n")), no_wrap=True)
    for line in lines:
        cells = [line.cells.get(head, "-") for head in heads] + [line.params.get(name, "") for name in names]
        table.add_row(*map(Text, cells), style="bold" if line.best else None)
    return table


def _folded(lines: Sequence[_Line], names: Sequence[str], width: int) -> list[Text]:
    """A line of figures for each trial, then its parameters on lines of their own."""
    heads = _heads(lines)
    widths = {head: max([len(head), *(cell_len(line.cells.get(head, "-")) for line in lines)]) for head in heads}
    for head in _EXPENDABLE:
        if head in heads and sum(widths[one] for one in heads) + len(_GAP) * (len(heads) - 1) > width:
            heads.remove(head)
    texts = [Text(_aligned(heads, {head: head for head in heads}, widths), style="bold")]
    for line in lines:
        style = "bold" if line.best else ""
        texts.append(Text(_aligned(heads, line.cells, widths), style=style))
        pairs = [f"{name} {line.params[name]}" for name in names if name in line.params]
        texts += [Text(" " * _INDENT + packed, style=style or "dim") for packed in _packed(pairs, width - _INDENT)]
    return texts


def _aligned(heads: Sequence[str], cells: Mapping[str, str], widths: Mapping[str, int]) -> str:
    parts = []
    for head in heads:
        cell = cells.get(head, "-")
        room = " " * (widths[head] - cell_len(cell))
        parts.append(cell + room if head == "ended" else room + cell)
    return _GAP.join(parts).rstrip()


def _packed(parts: Sequence[str], width: int) -> list[str]:
    """The parts on as few lines as hold them, none of them broken."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1]) + len(_GAP) + cell_len(part) <= width:
            lines[-1] += _GAP + part
        else:
            lines.append(part)
    return lines


def print_next_steps(
    console: Console, search_id: str, *, interrupted: bool, folds: bool = False, space_tried: bool = False
) -> None:
    """The commands that a search with a best trial is ready for.

    One with folds keeps no model to predict with, and one that has tried its whole space has no more trials.
    """
    search = shlex.quote(search_id)
    more = [] if space_tried else [(f"resume {search} --trials +12", "search on")]
    steps = [
        ("report", "what mattered, mistakes"),
        ("ui", "the trials in MLflow"),
        ("confirm", "is the best really better?"),
        ("promote", "test it once, register it"),
        *([] if folds else [(f"predict {search} IMAGES...", "use the best model")]),
        *([(f"resume {search}", "go on")] if interrupted else more),
    ]
    width = max(len(line) for line, _ in steps) + 1
    console.print("what to try next:")
    for line, purpose in steps:
        console.print(f"  tlsearch {line:<{width}} {purpose}", soft_wrap=True)


def alternatives_table(found: Sequence[Alternative], title: str) -> Table:
    """The best trial beside what is made of several; 80 columns hold it."""
    table = Table(title=title)
    for head in ("model", "trials"):
        table.add_column(head)
    for head in ("cross-fitted", "all images", "parameters", "ms (CPU)"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in found:
        values = [number_text(one.cross_fitted), number_text(one.value)]
        sizes = [one.parameters_text, one.latency_text]
        table.add_row(one.kind, one.members_text, *values, *sizes)
    return table


def alternatives_advice(found: Sequence[Alternative], search_id: str) -> str:
    """By model the command that takes it, a line each: a column beside the figures would cut commands."""
    width = max(len(one.kind) for one in found) + 1
    return "\n".join(f"{one.kind + ':':{width}} {one.advice(search_id)}" for one in found)
