"""What the parameters did: their importances, and the metric against each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, StrMethodFormatter

from tlsearch.core.types import TrialRecord
from tlsearch.results.report.plots.style import (
    BEST,
    CUT,
    DONE,
    FULL_IN,
    HALF_IN,
    INK,
    MUTED,
    Plot,
    add_axes,
    finish,
    name_at,
    name_rows,
    new_figure,
    note,
    plot_style,
)
from tlsearch.results.report.plots.view import (
    View,
    chosen_text,
    clamp,
    ending_of,
    is_number,
    jitter,
    robust_limits,
    short,
    value_of,
    varied_parameters,
)

MAX_SLICES = 12
MAX_NUMBERS = 10  # of one parameter in one small plot, each at a place of its own
MAX_CATEGORIES = 6  # their names are longer
_COLUMNS, _NARROW_COLUMNS = 4, 2
_ROW_IN = 2.35
_MAX_TICKS = 4


def plot_importance(view: View) -> Plot:
    """PED-ANOVA's shares as bars, with the range over trials drawn again."""
    plot, found = Plot(name="importance", title="Parameter importances"), view.importance
    if not found.values:
        return replace(plot, missing=f"{found.reason or 'not computed'}.")
    names = list(found.values)[:MAX_SLICES]
    caption = (
        f"PED-ANOVA for conditional spaces: what distinguishes the best {found.num_top} of {found.num_trials} trials, "
        f"all compared at epoch {found.epoch}, the last that every trial reached; later epochs are left out, since "
        "only promising trials have any. A line is the range over trials drawn again: where lines overlap, the order "
        "is chance."
    )
    with plot_style(plot.name):
        figure = new_figure(HALF_IN, 0.75 + 0.3 * max(len(names), 3))
        axes = add_axes(figure, left=1.45, right=0.55)
        for place, parameter in enumerate(names):
            value = found.values[parameter]
            axes.barh(place, value, height=0.62, color=DONE if place == 0 else "#8fb3d9")
            low, high = found.spread.get(parameter, (value, value))
            axes.plot([low, high], [place, place], color=INK, linewidth=1.0, solid_capstyle="butt")
            note(axes, f"{value:.0%}", (max(high, value), place), shift=(5, 0), va="center", color=INK)
        name_rows(axes, [short(n) for n in names], labelcolor=INK)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.02), xlabel=f"share of the importance at epoch {found.epoch}")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
        return finish(figure, plot, caption)


def plot_slices(view: View, width_in: float = FULL_IN) -> Plot:
    """The metric against each varied parameter, one small plot for each."""
    plot = Plot(name=name_at("slices", width_in), title="Metric against each parameter", wide=True)
    names = varied_parameters(view)
    if not names:
        few = (
            "no trial has a result"
            if not view.counting
            else "no parameter has two values among the trials with a result"
        )
        return replace(plot, missing=few)
    shown = names[:MAX_SLICES]
    columns = _COLUMNS if width_in == FULL_IN else _NARROW_COLUMNS
    rows = math.ceil(len(shown) / columns)
    low, high = robust_limits([value_of(t) for t in view.counting], view.record.objective)
    with plot_style(plot.name):
        height = _ROW_IN * rows + 0.1
        figure = new_figure(width_in, height)
        width = (width_in - 0.55) / columns
        marks: dict[str, list[int]] = {}
        for place, parameter in enumerate(shown):
            row, column = divmod(place, columns)
            left = 0.55 + column * width
            axes = add_axes(
                figure,
                left=left,
                right=width_in - left - width + 0.18,
                top=row * _ROW_IN + 0.12,
                bottom=height - (row + 1) * _ROW_IN + 0.62,
            )
            marks |= _slice(axes, view, parameter, place, (low, high))
            axes.set_ylim(low, high)
            axes.grid(axis="y")
            if column:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel(view.label)
        caption = (
            "Only trials that have the parameter are shown with it; grey ones were cut early, so theirs is the value "
            "by then. The best trial is orange, short lines are medians." + chosen_text(view, len(shown), len(names))
        )
        return finish(figure, plot, caption, marks)


def _slice(axes: Axes, view: View, parameter: str, place: int, limits: tuple[float, float]) -> dict[str, list[int]]:
    """Draws one small plot; gives its marks."""
    trials = [t for t in view.counting if t.params.get(parameter) is not None]
    values = [t.params[parameter] for t in trials]
    distinct = list(dict.fromkeys(values))
    numeric = is_number(values)
    log = numeric and view.is_rate(parameter) and min(map(float, values)) > 0  # type: ignore[arg-type]
    if log or (numeric and len(distinct) > MAX_NUMBERS):
        xs = [float(value) for value in values]  # type: ignore[arg-type]
        if log:
            log_axis(axes, xs)
        kept = trials
    else:
        order = sorted(distinct, key=float) if numeric else _by_best(view, parameter, trials)  # type: ignore[arg-type]
        order = order if numeric else order[:MAX_CATEGORIES]
        kept = [t for t in trials if t.params[parameter] in order]
        xs = [order.index(t.params[parameter]) + jitter(t.number, 0.22) for t in kept]
        _categories(axes, [view.forms[parameter].text(value) for value in order])  # type: ignore[arg-type]
        for position, value in enumerate(order):
            _median(axes, position, [value_of(t) for t in kept if t.params[parameter] == value])
        dropped = len(distinct) - len(order)
        parameter += f" (best {len(order)} of {len(distinct)})" if dropped else ""
    axes.set_xlabel(parameter, color=INK)
    marks = {}
    for kind, colour, size in (("cut", CUT, 11), ("done", DONE, 13), ("best", BEST, 34)):
        group = [(x, t) for x, t in zip(xs, kept, strict=True) if _kind(view, t) == kind]
        if group:
            ys = [clamp(value_of(t), limits) for _, t in group]
            points = axes.scatter([x for x, _ in group], ys, s=size, c=colour, linewidths=0.3, edgecolors="white")
            points.set_gid(f"points-{place}-{kind}")
            marks[f"points-{place}-{kind}"] = [t.number for _, t in group]
    return marks


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis over positive values, with numbers on it however close they are, and no more than fit."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.06, 1.1)
    axes.set_xscale("log")
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: rate_text(x)))
    axes.xaxis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within the ends, inclusive: powers of ten where there are enough; the ends where none are."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / _MAX_TICKS)]
    return sorted({low, high})


def rate_text(rate: float) -> str:
    """``1e-4`` or ``2.5e-3``: one form for all ticks of an axis."""
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def _kind(view: View, trial: TrialRecord) -> str:
    if view.best is not None and trial.number == view.best.number:
        return "best"
    return "done" if ending_of(trial) == "completed" else "cut"


def _by_best(view: View, parameter: str, trials: Sequence[TrialRecord]) -> list[object]:
    """The categories, the one with the best trial first."""
    ranked = view.top(trials, len(trials))
    return list(dict.fromkeys(trial.params[parameter] for trial in ranked))


def _categories(axes: Axes, names: Sequence[str]) -> None:
    room = 40 // len(names)  # characters under one small plot
    level = all(len(short(name, 20)) <= room for name in names)
    labels = [short(name, 20 if level else 15) for name in names]
    slant: Any = {"rotation": 20, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), labels, **({} if level else slant))
    axes.tick_params(axis="x", length=0, labelsize=7.5)
    axes.set_xlim(-0.6, len(names) - 0.4)


def _median(axes: Axes, position: int, values: Sequence[float]) -> None:
    if len(values) > 2:
        middle = sorted(values)[len(values) // 2]
        axes.plot([position - 0.33, position + 0.33], [middle, middle], color=MUTED, linewidth=1.4, zorder=1)
