"""The sections of a report's page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape

from tlsearch.core.text import command, format_s, last_line, number_text, plural
from tlsearch.results.combine.alternatives import Alternative
from tlsearch.results.leaderboard.front_rows import cost_label, front_rows, front_title
from tlsearch.results.report.findings import (
    GroupSummary,
    by_backbone,
    by_depth,
    by_image_size,
    describe_params,
    findings,
    shared_by_the_best,
    states_text,
    value_text,
)
from tlsearch.results.report.html import Cell, Row, grid, inline, paragraph, plot_figure, section, table
from tlsearch.results.report.plots.style import Plot
from tlsearch.results.report.plots.timing import SOURCES, paces, source_reasons
from tlsearch.results.report.plots.view import View, clock_of, ending_of, short, time_unit, varied_parameters

SHOWN_TRIALS = 15
_FRONT_PLOTS: Mapping[str, str] = {"latency_ms": "latency", "params_millions": "size", "checkpoint_mb": "size"}


def header(view: View, *, created: float, version: str, sections: Sequence[tuple[str, str]]) -> str:
    """Title, key figures and the sentences worth knowing first."""
    record, facts = view.record, view.facts
    data = f"{plural(len(facts.classes), 'class', 'classes')}, " if facts.classes else ""
    data += ", ".join(f"{count} {split}" for split, count in facts.images.items())
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    parts = [f"search {record.search_id}", f"{data} images" if data else "", f"made {when} by tlsearch {version}"]
    links = "".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in sections)
    items = "".join(f"<li>{inline(sentence)}</li>" for sentence in findings(view))
    return (
        f"<header><h1>{escape(record.experiment)}</h1>"
        f'<p class="sub">{escape(" · ".join(part for part in parts if part))}</p><nav>{links}</nav></header>'
        f'<dl class="figures">{_key_figures(view)}</dl><ul class="findings">{items}</ul>'
    )


def _key_figures(view: View) -> str:
    best = None if view.best is None else view.by_trial[view.best.number]
    reports = [report for trial in view.record.trials for report in trial.reports]
    stored = sum(report.source == "features" for report in reports)
    figures = [
        (
            f"best {view.label}",
            "–" if best is None or best.best_value is None else f"{best.best_value:.4f}",
            "" if best is None or best.interval is None else f"95 %: {best.interval[0]:.3f} to {best.interval[1]:.3f}",
        ),
        ("trials", str(len(view.record.trials)), states_text(view)),
        ("wall time", _wall_time(view), plural(len(reports), view.step)),
        (
            f"{view.step}s on cached features",
            f"{stored / len(reports):.0%}" if reports else "–",
            "instead of images" if reports else "",
        ),
        (
            "validation images",
            "–" if view.facts.num_validation is None else str(view.facts.num_validation),
            "what all trials are scored on",
        ),
    ]
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in figures
    )


def _wall_time(view: View) -> str:
    if view.record.spent_s:
        return duration(view.record.spent_s)
    times = [r.timestamp for t in view.record.trials for r in t.reports]
    times += [t.ended for t in view.record.trials if t.ended is not None]
    return duration(clock_of(view.record)(max(times))) if times else "–"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    unit, name = time_unit(seconds)
    return f"{seconds / unit:.1f} {name}" if seconds >= 10 or unit > 1 else f"{seconds:.2f} seconds"


def millions(count: int | None) -> str:
    """A number of parameters: ``3.4 M``."""
    return "–" if count is None else f"{count / 1e6:.1f} M"


def leaderboard_section(view: View) -> str:
    """Every trial, best first; sortable."""
    names = list(dict.fromkeys(name for row in view.rows for name in row.params))
    varied = varied_parameters(view)
    names = [name for name in names if name in varied] or names
    measured = any(row.latency_ms is not None for row in view.rows)
    sized = any(row.parameters is not None for row in view.rows)
    heads = ["rank", "trial", "ended", "value", view.step, "time"]
    heads += [*(["parameters"] if sized else []), *(["ms"] if measured else []), *names]
    rows = []
    for row in view.rows:
        near = " ≈" if row.within_one_se and row.rank != 1 else ""
        cells: list[Cell | str] = [
            Cell(text=row.rank_text, value=row.rank),
            Cell(text=str(row.trial), value=row.trial),
            row.reason or row.state,
            Cell(text=value_text(row) + near, value=row.best_value),
            Cell(text=f"{'–' if row.best_epoch is None else row.best_epoch}/{row.epochs_run}", value=row.epochs_run),
            Cell(text="" if row.seconds is None else format_s(row.seconds, tenths=True), value=row.seconds),
        ]
        if sized:
            cells.append(Cell(text=millions(row.parameters), value=row.parameters))
        if measured:
            cells.append(Cell(text=number_text(row.latency_ms, ".1f", none=""), value=row.latency_ms))
        for name in names:
            value = row.params.get(name)
            number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
            text = short(view.forms[name].text(value), 24) if name in row.params else ""
            cells.append(Cell(text=text, value=number))
        rows.append(Row(cells=cells, trial=row.trial, best=view.best is not None and row.trial == view.best.number))
    note = (
        "± is one standard error on this validation set; ≈ marks values within one of the best; = marks ranks that "
        f"several trials share. {view.step.capitalize()} is best/run. An empty parameter does not exist for that trial."
        + (" ms is the latency of one image." if measured else "")
    )
    numeric = ("rank", "trial", "value", view.step, "time", "parameters", "ms")
    trials = table(heads, rows, numeric=numeric, shown=SHOWN_TRIALS)
    return section("leaderboard", "Leaderboard", trials, paragraph(note, note=True))


def front_plot(view: View) -> str:
    """The name of the plot that shows the front, a checkpoint's by its parameters; empty where there is none."""
    return _FRONT_PLOTS.get(view.record.cost, "")


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
        table(heads, rows, numeric=heads[:3], shown=SHOWN_TRIALS),
        paragraph(note, note=True),
    )


def parameters_section(view: View, importance: Plot, others: Sequence[Plot]) -> str:
    """Importances, what the best trials have in common, and the plots by parameter."""
    count = min(5, len(view.counting))
    rows = [Row(cells=[name, best, Cell(text=spread, wrap=True)]) for name, best, spread in shared_by_the_best(view)]
    shared = ""
    if rows and count > 1:
        heads = ["parameter", "best trial", f"best {count} trials"]
        shared = f'<div><h3 class="under">What the best {count} trials have</h3>{table(heads, rows)}</div>'
    parts = [plot_figure(importance), shared, *(plot_figure(plot) for plot in others)]
    return section("parameters", "What the parameters did", grid(*parts))


def groups_section(view: View, plot: Plot) -> str:
    """Summaries by backbone, by depth, and by image size where it is searched."""
    parts = [grid(plot_figure(plot))]
    tables = {"backbone": by_backbone(view), "unfreeze depth": by_depth(view), "image size": by_image_size(view)}
    for title, groups in ((title, groups) for title, groups in tables.items() if groups):
        parts.append(f'<h3 class="spaced">By {title}</h3>{_group_table(view, title, groups)}')
    return section("groups", "Backbones and depths", *parts)


def _group_table(view: View, title: str, groups: Sequence[GroupSummary]) -> str:
    heads = [title, "trials", "complete", "best", "of trial", "median", f"{view.step}s", "time"]
    heads += ["parameters"] if title == "backbone" else []
    rows = []
    for group in groups:
        best = group.best
        parameters = view.facts.parameters.get(group.name) if best is None else best.parameters
        cells = [
            group.name,
            str(group.trials),
            str(group.completed),
            "–" if best is None else value_text(best),
            "–" if best is None else str(best.trial),
            number_text(group.median, none="–"),
            str(group.epochs),
            format_s(group.seconds, tenths=True),
        ]
        cells += [] if title != "backbone" else [millions(parameters)]
        rows.append(Row(cells=cells))
    return table(heads, rows, numeric=heads[1:], shown=SHOWN_TRIALS)


def time_section(view: View, plots: Sequence[Plot]) -> str:
    """Where the time went, and why epochs read images."""
    rows = []
    for source, reason, count, seconds in source_reasons(view):
        what, why = SOURCES.get(source, (source,))[0], Cell(text=reason or "–", wrap=True)
        rows.append(Row(cells=[what, why, str(count), duration(seconds)]))
    heads = [f"{view.step}s read", "because", f"{view.step}s", "time"]
    parts = [grid(*(plot_figure(plot) for plot in plots)), _pace_table(view)]
    if rows:
        parts += [f'<h3 class="spaced">What {view.step}s read</h3>', table(heads, rows, numeric=heads[2:])]
    return section("time", "Time and cached features", *parts)


def _pace_table(view: View) -> str:
    """Seconds of an epoch for what epochs have in common that take about as long."""
    rows = [
        Row(
            cells=[
                pace.model,
                str(pace.depth),
                SOURCES.get(pace.source, (pace.source,))[0],
                str(pace.epochs),
                Cell(text=f"{pace.median_s:.2f}", value=pace.median_s),
                Cell(text=f"{pace.least_s:.2f} to {pace.most_s:.2f}", value=pace.most_s),
            ]
        )
        for pace in paces(view)
    ]
    if not rows:
        return ""
    heads = ["model", "depth", f"{view.step}s read", f"{view.step}s", "median s", "s from to"]
    paced = table(heads, rows, numeric=heads[3:], shown=SHOWN_TRIALS)
    return f'<h3 class="spaced">Seconds of {view.one_step}</h3>{paced}'


def failures_section(view: View) -> str:
    """Trials that failed, diverged or did not fit, with their errors; empty where there are none."""
    failed = [t for t in view.record.trials if ending_of(t) in ("failed", "diverged")]
    if not failed:
        return ""
    rows = []
    for trial in failed:
        params = Cell(text=describe_params(view, trial.params), wrap=True)
        message = Cell(text=last_line(trial.error, "–"), wrap=True)
        rows.append(Row(cells=[str(trial.number), trial.reason, str(trial.epochs_run), message, params]))
    heads = ["trial", "reason", f"{view.step}s", "message", "parameters"]
    return section("failures", "Failures", table(heads, rows, numeric=("trial", f"{view.step}s"), shown=SHOWN_TRIALS))


_ALTERNATIVES = ("model", "trials", "cross-fitted", "all images", "parameters", "ms", "")


def alternatives_section(view: View) -> str:
    """One row for each model; empty where the best trial stands alone."""
    if len(view.alternatives) < 2:
        return ""
    rows = [Row(cells=_alternative_cells(one, view.record.search_id)) for one in view.alternatives]
    note = (
        f"Cross-fitted is the {view.label} where a model is chosen on one half of the validation images and scored on "
        "the other; a combination that was made has the trial's and its gain over it on the same halves. On all images "
        "each was chosen by the very images that score it. ms is the latency of one image on "
        "a CPU with one thread. ≤ is of an ensemble that was not made: what its members share counts for each of them."
    )
    body = table(list(_ALTERNATIVES), rows, numeric=_ALTERNATIVES[2:6])
    return section("alternatives", "Best trial, soup, ensemble", body, paragraph(note, note=True))


def _alternative_cells(one: Alternative, search_id: str) -> Sequence[Cell | str]:
    return [
        one.kind,
        Cell(text=one.members_text, wrap=True),
        Cell(text=number_text(one.cross_fitted, none="–"), value=one.cross_fitted),
        Cell(text=number_text(one.value, none="–"), value=one.value),
        Cell(text=one.parameters_text, value=one.parameters),
        Cell(text=one.latency_text, value=one.latency_ms),
        Cell(text=one.advice(search_id), wrap=True),
    ]
