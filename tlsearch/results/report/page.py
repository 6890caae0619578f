"""The report of a search: one page that needs nothing else, and its plots as PNG files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from tlsearch.core import __version__
from tlsearch.core.files import write_atomically
from tlsearch.core.types import TrialRecord
from tlsearch.results.report.findings import value_text
from tlsearch.results.report.html import grid, plot_figure, section
from tlsearch.results.report.label_section import LabelErrors, label_section
from tlsearch.results.report.model_section import BestModel, model_section
from tlsearch.results.report.plots.history import plot_curves, plot_history
from tlsearch.results.report.plots.parallel import plot_parallel
from tlsearch.results.report.plots.parameters import plot_importance, plot_slices
from tlsearch.results.report.plots.style import FULL_IN, NARROW_IN, Plot
from tlsearch.results.report.plots.timing import plot_epochs, plot_time
from tlsearch.results.report.plots.tradeoffs import plot_backbones, plot_latency, plot_size
from tlsearch.results.report.plots.view import ENDINGS, View, ending_of
from tlsearch.results.report.screen_section import screen_section
from tlsearch.results.report.sections import (
    alternatives_section,
    failures_section,
    front_plot,
    front_section,
    groups_section,
    header,
    leaderboard_section,
    parameters_section,
    time_section,
)
from tlsearch.results.report.settings_section import SearchSettings, best_section, settings_section

PAGE = "report.html"
PLOTS = "plots"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished report: the page, and every plot, those too that have nothing to show."""

    html: str
    plots: tuple[Plot, ...]


def make_report(
    view: View,
    model: BestModel | None = None,
    *,
    settings: SearchSettings | None = None,
    model_missing: str = "",
    labels: LabelErrors | None = None,
) -> Report:
    """Draws all plots of a search and puts them into one page.

    Args:
        view: The search.
        model: The best model's predictions; None leaves its section out.
        settings: How the search was set up.
        model_missing: Why the model is missing.
        labels: The doubtful labels of train and val; None leaves their section out.
    """
    plots = {
        plot.name: plot
        for plot in (
            _in_both_widths(plot_history, view),
            _in_both_widths(plot_curves, view),
            plot_importance(view),
            _in_both_widths(plot_slices, view),
            _in_both_widths(plot_parallel, view),
            plot_size(view),
            plot_latency(view),
            _in_both_widths(plot_backbones, view),
            plot_time(view),
            plot_epochs(view),
        )
    }
    best = None if model is None else model.plot()
    if best is not None:
        plots[best.name] = best
    sections = {"model": model_section(view, model, best, model_missing)}
    sections["labels"] = label_section(labels)
    html = _page(view, plots, sections, settings or SearchSettings(), time.time())
    return Report(html=html, plots=tuple(plots.values()))


def _in_both_widths(draw: Callable[[View, float], Plot], view: View) -> Plot:
    """A plot over the page's whole width, with one that can be read on a phone."""
    plot = draw(view, FULL_IN)
    if plot.missing:
        return plot
    narrow = draw(view, NARROW_IN)
    return replace(plot, narrow=narrow.svg, marks={**plot.marks, **narrow.marks})


def write_report(report: Report, directory: Path) -> dict[str, Path]:
    """Writes the page and the PNGs; what an earlier report left there is replaced.

    Returns:
        The files by their path below the directory: ``report.html``, ``plots/history.png``, ...
    """
    folder = directory / PLOTS
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    written = {}
    for plot in report.plots:
        if plot.png:
            written[f"{PLOTS}/{plot.name}.png"] = folder / f"{plot.name}.png"
            (folder / f"{plot.name}.png").write_bytes(plot.png)
    write_atomically(directory / PAGE, report.html)
    return {PAGE: directory / PAGE, **written}


def _page(
    view: View,
    plots: Mapping[str, Plot],
    images: Mapping[str, str],
    settings: SearchSettings,
    created: float,
) -> str:
    def figures(*names: str) -> str:
        return grid(*(plot_figure(plots[name]) for name in names))

    others = [name for name in ("size", "latency") if name != front_plot(view)]
    body = {
        "progress": section("progress", "How the search went", figures("history", "curves")),
        "leaderboard": leaderboard_section(view),
        "alternatives": alternatives_section(view),
        "best": best_section(None if view.best is None else view.best.number, settings),
        "parameters": parameters_section(view, plots["importance"], [plots["slices"], plots["parallel"]]),
        "front": front_section(view, plots),
        "cost": section("cost", "What accuracy costs", figures(*others)),
        "groups": groups_section(view, plots["backbones"]),
        "screen": screen_section(view),
        **images,
        "time": time_section(view, [plots["time"], plots["epochs"]]),
        "failures": failures_section(view),
        "settings": settings_section(settings),
    }
    if not view.counting:  # a page of empty places helps nobody: what went wrong, and what there is
        shown = ["failures", *(["progress"] if view.valued else []), "leaderboard", "settings"]
        body = {name: body[name] for name in shown}
    titles = [(name, _SHORT[name]) for name, html in body.items() if html]
    head = header(view, created=created, version=__version__, sections=titles)
    footer = (
        "<footer>Values are those of each trial’s best epoch on the validation images. This page is one file and loads "
        "nothing; its plots are beside it as PNG files.</footer>"
    )
    template = Template(_template(PAGE))
    return template.substitute(
        title=escape(f"{view.record.experiment}: {view.record.search_id}"),
        style=_template("report.css"),
        script=_template("report.js"),
        data=_data(view, plots),
        body=head + "".join(body.values()) + footer,
    )


_SHORT = {
    "progress": "Progress",
    "leaderboard": "Leaderboard",
    "alternatives": "Best trial, soup, ensemble",
    "best": "Best trial to copy",
    "parameters": "Parameters",
    "front": "Pareto front",
    "cost": "Cost",
    "groups": "Backbones and depths",
    "screen": "Screen of the backbones",
    "model": "Best model",
    "labels": "Doubtful labels",
    "time": "Time",
    "failures": "Failures",
    "settings": "Settings",
}


def _template(name: str) -> str:
    return (files("tlsearch.results.report") / "templates" / name).read_text(encoding="utf-8")


def _data(view: View, plots: Mapping[str, Plot]) -> str:
    """What the page's script shows over a mark; nothing in it can end the element it stands in."""
    data: dict[str, Any] = {
        "trials": {trial.number: _tip(view, trial) for trial in view.record.trials},
        "marks": {group: list(trials) for plot in plots.values() for group, trials in plot.marks.items()},
    }
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _tip(view: View, trial: TrialRecord) -> str:
    row = view.by_trial[trial.number]
    how, best_epoch = ENDINGS[ending_of(trial)][0], "–" if row.best_epoch is None else row.best_epoch
    lines = [
        f"trial {trial.number}: {value_text(row)}",
        f"{how}, best epoch {best_epoch} of {row.epochs_run}",
    ]
    lines += [f"{name} {text}" for name, text in view.texts(row.params).items()]
    return "\n".join(lines)
