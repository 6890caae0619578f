"""Parallel coordinates: every trial as a line over its parameters, inactive ones included."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba

from tlsearch.core.text import NumberForm
from tlsearch.core.types import Scalar, TrialRecord
from tlsearch.results.report.plots.style import (
    BEST,
    FAINT,
    FULL_IN,
    HIGH,
    INK,
    LOW,
    MUTED,
    Plot,
    add_axes,
    finish,
    name_at,
    new_figure,
    note,
    plot_style,
)
from tlsearch.results.report.plots.view import (
    View,
    chosen_text,
    is_number,
    jitter,
    robust_limits,
    short,
    value_of,
    varied_parameters,
)

MAX_AXES = 9
_NARROW_AXES = 3  # of a phone's width, and the metric's
_MAX_CATEGORIES = 12
_INACTIVE = -0.13  # where a trial's line passes an axis of a parameter that it does not have


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One axis: the height, in [0, 1], of each value, the labels by height.

    ``spread`` shifts the lines of trials with one and the same value apart.
    """

    heights: Mapping[Scalar, float]
    labels: Sequence[tuple[float, str]]
    spread: float = 0.0


def plot_parallel(view: View, width_in: float = FULL_IN) -> Plot:
    """All trials that count, coloured by the metric, the best in front."""
    plot = Plot(name=name_at("parallel", width_in), title="Parallel coordinates", wide=True)
    names = varied_parameters(view)
    if len(names) < 2 or len(view.counting) < 2:
        few = "fewer than two parameters have two values among the trials with a result"
        return replace(plot, missing=few)
    shown = names[: MAX_AXES if width_in == FULL_IN else _NARROW_AXES]
    trials = list(reversed(view.top(view.counting, len(view.counting))))  # the best are drawn last
    low, high = robust_limits([value_of(t) for t in trials], view.record.objective)
    scales = [parameter_scale(trials, parameter, log=view.is_rate(parameter)) for parameter in shown]
    with plot_style(plot.name):
        figure = new_figure(width_in, 4.0)
        side = 0.75 if width_in == FULL_IN else 0.6
        axes = add_axes(figure, left=side, right=side, top=0.5, bottom=0.3)
        lines = LineCollection(
            [_line(t, shown, scales, (low, high)) for t in trials],
            colors=_colours(view, trials),
            linewidths=[2.4 if t is view.best else 0.9 for t in trials],
        )
        lines.set_gid("lines")
        axes.add_collection(lines)
        some_inactive = any(parameter not in t.params for t in trials for parameter in shown)
        for place, (parameter, scale) in enumerate(zip(shown, scales, strict=True)):
            _axis(axes, place, parameter, scale)
        metric = [(h, f"{low + h * (high - low):.3g}") for h in (0.0, 0.25, 0.5, 0.75, 1.0)]
        _axis(axes, len(shown), view.label, Scale(heights={}, labels=metric))
        axes.set(xlim=(-0.05, len(shown) + 0.05), ylim=(-0.2 if some_inactive else -0.06, 1.04))
        axes.set_axis_off()
        if some_inactive:
            axes.axhline(_INACTIVE, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
            note(axes, "inactive", (0, _INACTIVE), shift=(-6, 0), ha="right", va="center", color=MUTED, fontsize=7.5)
        caption = (
            "Each line is a trial, darker for a better value, the best one orange."
            + (" It dips below an axis where the parameter does not exist for that trial." if some_inactive else "")
            + chosen_text(view, len(shown), len(names))
        )
        marks = {"lines": [t.number for t in trials]}
        return finish(figure, plot, caption, marks)


def parameter_scale(trials: Sequence[TrialRecord], parameter: str, *, log: bool) -> Scale:
    """Where each value of a parameter lies on its axis: by size where it is logarithmic or has many, else by name.

    Args:
        log: Whether the parameter is one of ratios, as a learning rate; a value of 0 has no place on such an axis.
    """
    values = [t.params[parameter] for t in trials if t.params.get(parameter) is not None]
    distinct = sorted(set(values), key=lambda v: (not is_number([v]), v if is_number([v]) else 0, str(v)))
    log = log and is_number(values) and len(distinct) > 1 and min(map(float, values)) > 0  # type: ignore[arg-type]
    if log or (is_number(values) and len(distinct) > _MAX_CATEGORIES):
        numbers = [float(value) for value in distinct]  # type: ignore[arg-type]
        places = [math.log10(n) for n in numbers] if log else numbers
        low, high = places[0], places[-1]
        ticks = _log_ticks(low, high) if log else [low + k * (high - low) / 4 for k in range(5)]
        labels = [((t - low) / (high - low), _power(t) if log else f"{t:.3g}") for t in ticks]
        heights = {v: (p - low) / (high - low) for v, p in zip(distinct, places, strict=True)}
        return Scale(heights=heights, labels=labels)
    step = 1 / max(len(distinct) - 1, 1)
    heights = {v: place * step if len(distinct) > 1 else 0.5 for place, v in enumerate(distinct)}
    form = NumberForm.of(distinct)
    labels = [(height, short(form.text(value), 20)) for value, height in heights.items()]
    every = math.ceil(len(labels) / _MAX_CATEGORIES)
    return Scale(heights=heights, labels=labels[::every], spread=min(0.03, 0.2 * step))


def _log_ticks(low: float, high: float) -> list[float]:
    """Whole powers of ten, and the ends unless they are close to one."""
    whole = [float(t) for t in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
    near = 0.1 * (high - low)
    return [*whole, *(end for end in (low, high) if all(abs(end - t) > near for t in whole))]


def _power(exponent: float) -> str:
    digits = 0 if abs(exponent - round(exponent)) < 1e-9 else 1
    return f"{10**exponent:.{digits}e}".replace("e-0", "e-").replace("e+0", "e")


def _line(
    trial: TrialRecord, names: Sequence[str], scales: Sequence[Scale], limits: tuple[float, float]
) -> list[tuple[float, float]]:
    points = []
    for place, (name, scale) in enumerate(zip(names, scales, strict=True)):
        value = trial.params.get(name)
        height = _INACTIVE if value is None else scale.heights[value]
        points.append((float(place), height + jitter(trial.number, scale.spread if value is not None else 0.02)))
    low, high = limits
    height = min(max((value_of(trial) - low) / (high - low), 0.0), 1.0)
    return [*points, (float(len(names)), height)]


def _colours(view: View, trials: Sequence[TrialRecord]) -> list[tuple[float, ...]]:
    """By rank, not by value, a few bad trials must not take the whole scale; the worst are nearly transparent."""
    scale = LinearSegmentedColormap.from_list("metric", [LOW, "#7fabd4", HIGH])
    last = max(len(trials) - 1, 1)
    faintest = 0.6 if len(trials) <= 60 else 0.25
    shares = [(place / last) ** 1.5 for place in range(len(trials))]
    colours = [(*scale(share)[:3], faintest + (0.9 - faintest) * share) for share in shares]
    return [to_rgba(BEST) if t is view.best else colour for t, colour in zip(trials, colours, strict=True)]


def _axis(axes: Axes, place: int, title: str, scale: Scale) -> None:
    axes.plot([place, place], [0, 1], color=FAINT, linewidth=1.0, zorder=3)
    note(axes, title, (place, 1.0), shift=(0, 14), ha="center", color=INK, fontweight="bold", fontsize=7.5)
    for height, label in scale.labels:
        axes.plot([place - 0.012, place], [height, height], color=MUTED, linewidth=0.8, zorder=3)
        text = note(axes, label, (place, height), shift=(4, 0), va="center", color=INK, fontsize=7.5, zorder=5)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})
