"""The report's section on the Pareto front of a search with two objectives: its plot, and a table of its trials."""

from __future__ import annotations

from collections.abc import Mapping

from tlsearch.core.text import command
from tlsearch.results.leaderboard.front_rows import cost_label, front_rows, front_title
from tlsearch.results.report.findings import describe_params, value_text
from tlsearch.results.report.html import Cell, Row, grid, paragraph, plot_figure, section, table
from tlsearch.results.report.plots.style import Plot
from tlsearch.results.report.plots.view import View

_SHOWN = 15
_PLOTS: Mapping[str, str] = {"latency_ms": "latency", "params_millions": "size", "checkpoint_mb": "size"}


def front_plot(view: View) -> str:
    """The name of the plot that shows the front, a checkpoint's by its parameters; empty where there is none."""
    return _PLOTS.get(view.record.cost, "")


def front_section(view: View, plots: Mapping[str, Plot]) -> str:
    """The plot and one row for each trial, the cheapest first; empty without a second objective."""
    name = front_plot(view)
    if not name:
        return ""
    rows = [
        Row(
            cells=[
                Cell(text=str(one.trial), value=one.trial),
                Cell(text=value_text(view.by_trial[one.trial]), value=one.value),
                Cell(text=one.cost_text, value=one.cost),
                one.model,
                Cell(text=describe_params(view, one.params), wrap=True),
            ],
            trial=one.trial,
            best=one.best,
        )
        for one in front_rows(view.record)
    ]
    heads = ["trial", view.record.metric, cost_label(view.record), "model", "parameters"]
    note = "No other trial is both cheaper and better than one of these."
    if view.record.cost == "latency_ms":
        take = command("promote", view.record.search_id, "--max-latency-ms", "L")
        note += f" The latency is that of the trials' device, measured once for each model. {take} takes the best in L."
    return section(
        "front",
        front_title(view.record),
        grid(plot_figure(plots[name])),
        table(heads, rows, numeric=heads[:3], shown=_SHOWN),
        paragraph(note, note=True),
    )
