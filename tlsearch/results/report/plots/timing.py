"""Where the time went: by unfreeze depth, and whether epochs read cached features or images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from matplotlib.ticker import FuncFormatter, NullFormatter

from tlsearch.core.types import EpochReport, TrialRecord
from tlsearch.results.report.plots.style import (
    CUT,
    HALF_IN,
    OTHER,
    Plot,
    add_axes,
    finish,
    legend_above,
    name_rows,
    new_figure,
    note,
    plot_style,
)
from tlsearch.results.report.plots.view import View, jitter, time_unit

SOURCES = {"features": ("cached features", OTHER), "pixels": ("images", CUT)}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Epochs that take about as long: of one model at one depth, from the same source; seconds."""

    model: str
    depth: int
    source: str
    epochs: int
    median_s: float
    least_s: float
    most_s: float


def paces(view: View) -> list[Pace]:
    """One for each model, depth and source that has a time, in that order."""
    found: dict[tuple[str, int, str], list[float]] = {}
    for trial in view.record.trials:
        for report in _timed(trial):
            key = (trial.config.model, trial.config.unfreeze_depth, report.source)
            found.setdefault(key, []).append(report.metrics["epoch_seconds"])
    return [
        Pace(
            model=model,
            depth=depth,
            source=source,
            epochs=len(times),
            median_s=median(times),
            least_s=min(times),
            most_s=max(times),
        )
        for (model, depth, source), times in sorted(found.items())
    ]


def epochs_by_depth(view: View) -> dict[int, list[EpochReport]]:
    """All epochs with a time, by unfreeze depth."""
    found: dict[int, list[EpochReport]] = {}
    for trial in view.record.trials:
        found.setdefault(trial.config.unfreeze_depth, []).extend(_timed(trial))
    return {depth: reports for depth, reports in sorted(found.items()) if reports}


def plot_time(view: View) -> Plot:
    """Total time of all epochs by depth, split by what they read."""
    plot, by_depth = Plot(name="time", title="Time by unfreeze depth"), epochs_by_depth(view)
    if not by_depth:
        return replace(plot, missing=f"no {view.step} has reported its time")
    total = sum(_seconds(reports) for reports in by_depth.values())
    unit, unit_name = time_unit(max(_seconds(reports) for reports in by_depth.values()))
    with plot_style(plot.name):
        figure = new_figure(HALF_IN, 0.95 + 0.3 * max(len(by_depth), 3))
        axes = add_axes(figure, left=0.95, top=0.38, right=0.7)
        for source, (words, colour) in SOURCES.items():
            starts = [_seconds(by_depth[d], "features") / unit if source == "pixels" else 0.0 for d in by_depth]
            widths = [_seconds(by_depth[d], source) / unit for d in by_depth]
            if any(widths):
                axes.barh(range(len(by_depth)), widths, left=starts, height=0.62, color=colour, label=words)
        for row, reports in enumerate(by_depth.values()):
            seconds = _seconds(reports)
            note(axes, f"{seconds / total:.0%}", (seconds / unit, row), shift=(5, 0), va="center")
        name_rows(axes, [f"depth {depth}" for depth in by_depth])
        axes.invert_yaxis()
        axes.set_xlabel(f"time of all {view.step}s, {unit_name}")
        legend_above(axes)
        caption = (
            f"{_words(total)} of training and evaluation in all; trials that ran side by side count each. "
            + _share_text(view)
        )
        return finish(figure, plot, caption)


def plot_epochs(view: View) -> Plot:
    """Seconds of each epoch by depth, on a logarithmic axis."""
    plot, by_depth = Plot(name="epochs", title=f"Seconds of {view.one_step}"), epochs_by_depth(view)
    if not by_depth:
        return replace(plot, missing=f"no {view.step} has reported its time")
    with plot_style(plot.name):
        figure = new_figure(HALF_IN, 0.95 + 0.3 * max(len(by_depth), 3))
        axes = add_axes(figure, left=0.95, top=0.38, right=0.25)
        for source, (words, colour) in SOURCES.items():
            xs, ys = [], []
            for row, reports in enumerate(by_depth.values()):
                for number, report in enumerate(reports):
                    if report.source == source:
                        xs.append(report.metrics["epoch_seconds"])
                        ys.append(row + jitter(number, 0.24))
            if xs:
                axes.scatter(xs, ys, s=8, c=colour, linewidths=0, alpha=0.8 if len(xs) < 300 else 0.4, label=words)
        one = len({pace.model for pace in paces(view)}) == 1
        for pace in paces(view) if one else ():
            row = list(by_depth).index(pace.depth)
            axes.plot([pace.median_s] * 2, [row - 0.34, row + 0.34], color=SOURCES[pace.source][1], linewidth=1.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        name_rows(axes, [f"depth {depth}" for depth in by_depth])
        axes.set_ylim(len(by_depth) - 0.5, -0.5)
        axes.set_xlabel(f"seconds of {view.one_step}, training and evaluation")
        legend_above(axes)
        caption = (
            f"Each point is {view.one_step} of some trial"
            + (", each short line the median of its depth and colour" if one else " of any backbone")
            + f"; the table below tells them apart. The first {view.step} on cached features may include computing "
            "them."
        )
        return finish(figure, plot, caption)


def source_reasons(view: View) -> list[tuple[str, str, int, float]]:
    """(source, why, epochs, seconds) over all epochs, the most frequent first."""
    epochs: Counter[tuple[str, str]] = Counter()
    seconds: Counter[tuple[str, str]] = Counter()
    for trial in view.record.trials:
        for report in trial.reports:
            key = (report.source, report.source_reason)
            epochs[key] += 1
            seconds[key] += report.metrics.get("epoch_seconds", 0.0)  # type: ignore[assignment]
    return [(source, reason, count, seconds[source, reason]) for (source, reason), count in epochs.most_common()]


def _timed(trial: TrialRecord) -> list[EpochReport]:
    return [report for report in trial.reports if report.metrics.get("epoch_seconds", 0.0) > 0]


def _share_text(view: View) -> str:
    sources = Counter(report.source for trial in view.record.trials for report in trial.reports)
    return f"{sources['features']} of {sources.total()} epochs read cached features instead of images."


def _seconds(reports: Sequence[EpochReport], source: str | None = None) -> float:
    return sum(r.metrics["epoch_seconds"] for r in reports if source is None or r.source == source)


def _words(seconds: float) -> str:
    unit, name = time_unit(seconds)
    return f"{seconds / unit:.1f} {name}"
