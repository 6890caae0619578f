"""What accuracy costs: against parameters and latency with the Pareto front, and by backbone and depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.typing import ColorType

from tlsearch.core.types import TrialConfig, TrialRecord
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow
from tlsearch.results.report.plots.style import (
    BEST,
    FULL_IN,
    HALF_IN,
    HIGH,
    INK,
    LOW,
    MUTED,
    STEPS,
    Plot,
    add_axes,
    finish,
    legend_above,
    name_at,
    new_figure,
    note,
    plot_style,
)
from tlsearch.results.report.plots.view import View, clamp, robust_limits, short, value_of

MAX_BACKBONES = 20
_NAME_ROOM_PX = 14.0
_MAX_NAMES = 8  # with more models only those of the front are named
DEPTHS = range(6)


def plot_size(view: View) -> Plot:
    """Metric against the number of parameters."""
    return _against(
        view,
        Plot(name="size", title="Accuracy against size" if _is_accuracy(view) else "Metric against size"),
        cost=lambda row: None if row.parameters is None else row.parameters / 1e6,
        label="parameters, millions",
        missing="the number of parameters is not known",
    )


def plot_latency(view: View) -> Plot:
    """Metric against the latency of one image."""
    plot = Plot(name="latency", title="Accuracy against latency" if _is_accuracy(view) else "Metric against latency")
    return _against(
        view,
        plot,
        cost=lambda row: row.latency_ms,
        label="latency of one image, ms" + (f" ({view.facts.latency_on})" if view.facts.latency_on else ""),
        missing="no latency was measured; `tlsearch report --latency` measures each backbone on this machine's CPU",
    )


def _against(
    view: View, plot: Plot, *, cost: Callable[[LeaderboardRow], float | None], label: str, missing: str
) -> Plot:
    costs = {t.number: cost(view.by_trial[t.number]) for t in view.counting}
    points = [(c, value_of(t), t) for t in view.counting if (c := costs[t.number]) is not None]
    if not points:
        few = missing if view.counting else "no trial has a result"
        return replace(plot, missing=few)
    front = view.record.objective.front(view.counting, value_of, lambda t: costs[t.number])
    errors = [(value_of(t), view.by_trial[t.number].standard_error or 0.0) for t in front]
    ends = [value + sign * error for value, error in errors for sign in (-1, 1)]
    limits = robust_limits([value for _, value, _ in points] + ends, view.record.objective)
    with plot_style(plot.name):
        figure = new_figure(HALF_IN, 3.5)
        axes = add_axes(figure, left=0.65, top=0.42, right=0.25)
        marks = {}
        for depth in DEPTHS:
            group = [p for p in points if p[2].config.unfreeze_depth == depth]
            if group:
                ys = [clamp(value, limits) for _, value, _ in group]
                dots = axes.scatter(
                    [c for c, _, _ in group],
                    ys,
                    s=18,
                    c=STEPS[depth],
                    linewidths=0.4,
                    edgecolors="white",
                    label=str(depth),
                )
                dots.set_gid(f"points-{depth}")
                marks[f"points-{depth}"] = [t.number for _, _, t in group]
        _cost_axis(axes, [c for c, _, _ in points])
        _draw_front(axes, view, [(costs[t.number] or 0.0, t) for t in front])
        _name_columns(axes, points, front)
        axes.set(xlabel=label, ylabel=view.label, ylim=limits)
        axes.grid(axis="both")
        legend_above(axes, columns=8, title=None)
        note(axes, "unfreeze depth", (1.0, 1.0), shift=(0, 6), xycoords="axes fraction", ha="right", fontsize=7.5)
        caption = (
            "The orange line is the Pareto front: no trial is both cheaper and better. "
            + ("Bars are one standard error. " if any(view.by_trial[t.number].standard_error for t in front) else "")
            + "Size and latency depend on the model alone, so trials stand in columns."
        )
        return finish(figure, plot, caption, marks)


def _draw_front(axes: Axes, view: View, front: Sequence[tuple[float, TrialRecord]]) -> None:
    xs, ys = [c for c, _ in front], [value_of(t) for _, t in front]
    axes.step(xs, ys, where="post", color=BEST, linewidth=1.3, zorder=1)
    errors = [view.by_trial[t.number].standard_error or 0.0 for _, t in front]
    if any(errors):
        axes.errorbar(xs, ys, yerr=errors, fmt="none", ecolor=BEST, elinewidth=1.0, capsize=2.5, zorder=2)


def _name_columns(axes: Axes, points: Sequence[tuple[float, float, TrialRecord]], front: Sequence[TrialRecord]) -> None:
    """Each model's name along its column, the front's first; none where it would stand on another's."""
    costs: dict[str, set[float]] = {}
    for cost, _, trial in points:
        costs.setdefault(trial.config.backbone, set()).add(cost)

    def name_of(config: TrialConfig) -> str:  # all image sizes may cost the same: parameters of a convolutional network
        return config.backbone if len(costs[config.backbone]) == 1 else config.model

    columns = {name_of(t.config): c for c, _, t in points}
    first = [name_of(t.config) for t in front]
    taken: list[float] = []
    named = columns if len(columns) <= _MAX_NAMES else dict.fromkeys(first)
    for one in sorted(named, key=lambda name: (name not in first, columns[name])):
        place = float(axes.transData.transform((columns[one], 0.0))[0])
        if all(abs(place - other) > _NAME_ROOM_PX for other in taken):
            taken.append(place)
            name = short(one.removeprefix("timm/"), 24)
            look: Any = {"color": MUTED, "fontsize": 7.5, "rotation": 90, "va": "bottom", "zorder": 0}
            note(axes, name, (columns[one], 0.02), shift=(4, 0), xycoords=("data", "axes fraction"), **look)


def _cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    """Logarithmic over more than a factor of ten, with plain numbers."""
    low, high = min(costs), max(costs)
    if low > 0 and high / low > 10:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.25, high * 1.25)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, high * 1.15)


def plot_backbones(view: View, width_in: float = FULL_IN) -> Plot:
    """The best value of each backbone at each depth, with the number of trials."""
    plot = Plot(name=name_at("backbones", width_in), title="Best value by backbone and unfreeze depth", wide=True)
    narrow = width_in != FULL_IN
    if not view.counting:
        return replace(plot, missing="no trial has a result")
    ranked = list(dict.fromkeys(t.config.backbone for t in view.top(view.counting, len(view.counting))))
    shown = ranked[:MAX_BACKBONES]
    depths = [d for d in DEPTHS if any(t.config.unfreeze_depth == d for t in view.counting)]
    cells = {
        (b, d): [t for t in view.counting if (t.config.backbone, t.config.unfreeze_depth) == (b, d)]
        for b in shown
        for d in depths
    }
    values = [value_of(best) for group in cells.values() if (best := view.best_of(group))]
    low, high = robust_limits(values, view.record.objective)
    scale = LinearSegmentedColormap.from_list("metric", [LOW, "#7fabd4", HIGH])
    with plot_style(plot.name):
        figure = new_figure(width_in, 0.5 + 0.42 * len(shown))
        axes = add_axes(figure, left=1.05 if narrow else 2.0, right=0.15, top=0.1, bottom=0.3)
        for (backbone, depth), group in cells.items():
            at = depths.index(depth), shown.index(backbone)
            best = view.best_of(group)
            if best is None:
                axes.text(*at, "–", ha="center", va="center", color=INK)
                continue
            share = (value_of(best) - low) / (high - low)
            share = min(max(share if view.record.objective.mode == "max" else 1 - share, 0.0), 1.0)
            number = f"{value_of(best):.3f}\nn={len(group)}" if narrow else f"{value_of(best):.4f}   n={len(group)}"
            is_best = view.best is not None and best.number == view.best.number
            _fill_cell(axes, at, scale(share), number, INK if share <= 0.55 else "white", bold=is_best)
        names = [f"depth {d}" + (" (head only)" if d == 0 and not narrow else "") for d in depths]
        axes.set_xticks(range(len(depths)), names)
        axes.set_yticks(range(len(shown)), [short(b, 15 if narrow else 30) for b in shown])
        axes.tick_params(length=0, labelcolor=INK)
        axes.set(xlim=(-0.5, len(depths) - 0.5), ylim=(len(shown) - 0.5, -0.5))
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        left_out = len(ranked) - len(shown)
        caption = (
            "The best trial of each cell and how many trials it is the best of: a cell with more trials has had more "
            "chances." + (f" The {left_out} worst backbones are left out." if left_out else "")
        )
        return finish(figure, plot, caption)


def _fill_cell(axes: Axes, at: tuple[int, int], colour: ColorType, text: str, ink: str, *, bold: bool) -> None:
    """A cell (column, row) of a table of colours with its text."""
    column, row = at
    axes.fill_between([column - 0.48, column + 0.48], row - 0.46, row + 0.46, color=colour, linewidth=0)
    axes.text(column, row, text, ha="center", va="center", color=ink, fontweight="bold" if bold else "normal")


def _is_accuracy(view: View) -> bool:
    return view.record.metric == "val_accuracy"
