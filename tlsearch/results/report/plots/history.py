"""How the search went: the incumbent over wall time, and every trial's learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedLocator, MaxNLocator

from tlsearch.core.text import plural
from tlsearch.core.types import TrialRecord
from tlsearch.results.report.plots.style import (
    BEST,
    FULL_IN,
    INK,
    MUTED,
    Plot,
    add_axes,
    finish,
    legend_above,
    name_at,
    new_figure,
    note,
    plot_style,
)
from tlsearch.results.report.plots.view import (
    ENDINGS,
    Clock,
    View,
    clamp,
    clock_of,
    ending_of,
    robust_limits,
    time_unit,
    value_of,
)

_HEIGHT_IN = 3.7


def plot_history(view: View, width_in: float = FULL_IN) -> Plot:
    """Each trial where it had its best value, over wall time, with the best so far."""
    plot = Plot(name=name_at("history", width_in), title="Optimisation history", wide=True)
    if not view.valued:
        return replace(plot, missing="no trial has reported a value")
    clock = clock_of(view.record)
    times = {t.number: clock(_best_time(t)) for t in view.valued}
    steps = _incumbent(view, clock)
    longest = max([*times.values(), steps[-1][0] if steps else 0.0, 1.0])
    unit, unit_name = time_unit(longest)
    with plot_style(plot.name):
        figure = new_figure(width_in, _HEIGHT_IN)
        axes = add_axes(figure, left=0.65, top=0.4 if width_in == FULL_IN else 0.6)
        reached = [*(value_of(t) for t in view.valued), *(value for _, value in steps)]
        low, high = robust_limits(reached, view.record.objective)
        marks = {}
        for ending, (words, colour) in ENDINGS.items():
            trials = [t for t in view.valued if ending_of(t) == ending]
            if trials:
                xs = [times[t.number] / unit for t in trials]
                ys = [clamp(value_of(t), (low, high)) for t in trials]
                points = axes.scatter(xs, ys, s=20, c=colour, linewidths=0.4, edgecolors="white", label=words, zorder=4)
                points.set_gid(f"points-{ending}")
                marks[f"points-{ending}"] = [t.number for t in trials]
        if steps:
            xs = [time / unit for time, _ in steps] + [longest / unit]
            ys = [value for _, value in steps] + [steps[-1][1]]
            axes.step(xs, ys, where="post", color=BEST, linewidth=1.6, label="best so far", zorder=3)
            _name_best(axes, view, xs[-1], ys[-1])
        for began, length in clock.pauses:
            _mark_pause(axes, clock(began) / unit, length)
        axes.set(xlabel=f"wall time, {unit_name}", ylabel=view.label, ylim=(low, high))
        axes.set_xlim(-0.01 * longest / unit, 1.02 * longest / unit)
        axes.grid(axis="y")
        legend_above(axes, columns=6 if width_in == FULL_IN else 3)
        caption = (
            "Each point is a trial, where it reached its best value; the line is the best value known at that time."
            + _beyond(view.valued, low, high)
            + (" The time between two starts of the search is left out." if clock.pauses else "")
        )
        return finish(figure, plot, caption, marks)


def plot_curves(view: View, width_in: float = FULL_IN) -> Plot:
    """Validation metric by epoch, or fold, for every trial, with the rungs and the cuts."""
    plot = Plot(name=name_at("curves", width_in), title="Learning curves", wide=True)
    metric = view.record.metric
    trials = [t for t in view.valued if any(metric in r.metrics for r in t.reports)]
    if not trials:
        return replace(plot, missing="no trial has reported a value")
    values = [value for t in trials for _, value in _curve(t, metric)]
    with plot_style(plot.name):
        figure = new_figure(width_in, _HEIGHT_IN)
        axes = add_axes(figure, left=0.65, top=0.4 if width_in == FULL_IN else 0.6)
        low, high = robust_limits(values, view.record.objective)
        marks = _draw_endings(axes, trials, metric)
        if view.best is not None:
            xs, ys = zip(*_curve(view.best, metric), strict=True)
            axes.plot(
                xs, ys, color=BEST, linewidth=2.2, label="best trial", zorder=4, marker="o" if len(xs) == 1 else None
            )
        longest = max(t.epochs_run for t in trials)
        first = min(_curve(t, metric)[0][0] for t in trials)
        _draw_rungs(axes, view.facts.rungs, longest)
        axes.set(
            xlabel=view.step,
            ylabel=view.label,
            ylim=(low, high),
            xlim=(first - 0.02 * longest if longest > 1 else first - 0.5, longest * 1.01 if longest > 1 else 1.5),
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12) if longest > 1 else FixedLocator([0, 1]))
        axes.grid(axis="y")
        legend_above(axes, columns=6 if width_in == FULL_IN else 3)
        cut = sum(ending_of(t) == "asha" for t in trials)
        caption = (
            f"{plural(len(trials), 'trial')}; a cross is where one was cut. "
            + ("Epoch 0 is the solved head before the first step. " if first == 0 else "")
            + (f"ASHA cut {cut} of them at its rungs. " if view.facts.rungs else "No scheduler cut trials. ")
            + _beyond(trials, low, high).strip()
        ).strip()
        return finish(figure, plot, caption, marks)


def _draw_endings(axes: Axes, trials: Sequence[TrialRecord], metric: str) -> dict[str, list[int]]:
    """The trials' curves and their last points, coloured by how they ended; the numbers of the trials by mark."""
    marks: dict[str, list[int]] = {}
    size = 13 if len(trials) <= 60 else 7
    faint = 0.9 if len(trials) <= 40 else 0.5 if len(trials) <= 150 else 0.3
    for ending, (words, colour) in ENDINGS.items():
        group = [t for t in trials if ending_of(t) == ending]
        if not group:
            continue
        lines = LineCollection([_curve(t, metric) for t in group], colors=colour, linewidths=1.0, alpha=faint)
        lines.set(gid=f"lines-{ending}", label=words)
        axes.add_collection(lines)
        xs, ys = zip(*(_curve(t, metric)[-1] for t in group), strict=True)
        shape = "x" if ending in ("asha", "budget", "failed", "diverged") else "o"
        axes.scatter(xs, ys, s=size, c=colour, marker=shape, linewidths=1.0).set_gid(f"ends-{ending}")
        marks |= {f"{kind}-{ending}": [t.number for t in group] for kind in ("lines", "ends")}
    return marks


def _draw_rungs(axes: Axes, rungs: Sequence[int], longest: int) -> None:
    for rung in rungs:
        if rung <= longest:
            axes.axvline(rung, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
            beside = ("data", "axes fraction")
            note(axes, "rung", (rung, 0.015), shift=(3, 0), xycoords=beside, color=MUTED, fontsize=7.5)


def _curve(trial: TrialRecord, metric: str) -> list[tuple[float, float]]:
    """(epoch, value), from epoch 0 where the head started solved."""
    start = [] if trial.start is None or metric not in trial.start.metrics else [(0.0, trial.start.metrics[metric])]
    return start + [(float(r.epoch), r.metrics[metric]) for r in trial.reports if metric in r.metrics]


def _best_time(trial: TrialRecord) -> float:
    if trial.best_epoch == 0 and trial.start is not None:
        return trial.start.timestamp
    return next((r.timestamp for r in trial.reports if r.epoch == trial.best_epoch), trial.reports[-1].timestamp)


def _incumbent(view: View, clock: Clock) -> list[tuple[float, float]]:
    """Seconds and value of each improvement of the best value; trials that do not count never are the best."""
    metric = view.record.metric
    trials = [t for t in view.valued if ending_of(t) not in ("failed", "diverged")]
    reports = [one for t in trials for one in (*((t.start,) if t.start else ()), *t.reports)]
    steps: list[tuple[float, float]] = []
    for report in sorted((r for r in reports if metric in r.metrics), key=lambda r: r.timestamp):
        value = report.metrics[metric]
        if not steps or view.record.objective.better(value, steps[-1][1]):
            steps.append((clock(report.timestamp), value))
    return steps


def _name_best(axes: Axes, view: View, x: float, y: float) -> None:
    if view.best is None:
        return
    text = f"trial {view.best.number}: {value_of(view.best):.4f}"
    note(axes, text, (x, y), shift=(-2, 5), ha="right", color=INK, fontweight="bold")


def _mark_pause(axes: Axes, x: float, length_s: float) -> None:
    unit, name = time_unit(length_s)
    axes.axvline(x, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    text = f"paused {length_s / unit:.0f} {name}"
    axes.annotate(
        text, (x, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="right", color=MUTED, fontsize=7.5
    )


def _beyond(trials: Sequence[TrialRecord], low: float, high: float) -> str:
    beyond = sum(not low <= value_of(t) <= high for t in trials)
    if beyond == 0:
        return ""
    return (
        f" {beyond} with far worse values lie at the edge." if beyond > 1 else " One far worse trial lies at the edge."
    )
