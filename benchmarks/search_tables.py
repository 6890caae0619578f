"""Figures of searches over many seeds, as tables and plots: for ``search_quality.py``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from simulated import Trace

_RESAMPLES = 10_000
_CLOSE = 0.015  # the first four trials are good where their best is this near to the search's last


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One contestant's figures by seed."""

    traces: tuple[Trace, ...]
    areas: tuple[float, ...]
    early: tuple[float, ...]
    final: tuple[float, ...]


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Mean of one - other over seeds, and the ends of its 95 % bootstrap interval."""
    differences = np.array(one) - np.array(other)
    drawn = np.random.default_rng(0).integers(0, len(differences), (_RESAMPLES, len(differences)))
    low, high = np.percentile(differences[drawn].mean(axis=1), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def row_of(scores: Scores, against: Scores) -> dict[str, Any]:
    """The figures of a row of the table."""
    mean, low, high = paired(scores.areas, against.areas)
    return {
        "area": statistics.mean(scores.areas),
        "early_area": statistics.mean(scores.early),
        "final": statistics.mean(scores.final),
        "against_ours": [mean, low, high],
        "trials": statistics.mean(trace.num_trials for trace in scores.traces),
        "epochs": statistics.mean(trace.num_epochs for trace in scores.traces),
        "suggest_s": statistics.mean(trace.suggest_s for trace in scores.traces),
        "first_four": statistics.mean(
            final - trace.first_four <= _CLOSE for final, trace in zip(scores.final, scores.traces, strict=True)
        ),
        "areas": [round(value, 5) for value in scores.areas],
    }


def print_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """As Markdown."""
    print(f"\n| {title} | area | first quarter | best at the end | against ours (95 %) | trials | first four |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        mean, low, high = row["against_ours"]
        against = "" if name == "ours" else f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
        shares = " | ".join(f"{100 * row[key]:.2f}" for key in ("area", "early_area", "final"))
        print(f"| {name} | {shares} | {against} | {row['trials']:.0f} | {row['first_four']:.2f} |", flush=True)


def worst_lag(one: Scores, other: Scores, seconds: float, chance: float) -> float:
    """By how much the mean best so far of ``one`` is below that of ``other`` at most, at any time."""
    times = np.linspace(0, seconds, 400)
    curves = [[statistics.mean(trace.at(time, chance) for trace in s.traces) for time in times] for s in (one, other)]
    return float(max(np.array(curves[1]) - np.array(curves[0])))


def plot(path: Path, title: str, scores: Mapping[str, Scores], *, chance: float, seconds: float) -> None:
    """The mean best so far over seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    times = np.geomspace(5, seconds, 300)
    for name, one in scores.items():
        means = [statistics.mean(trace.at(time, chance) for trace in one.traces) for time in times]
        own = name == "ours"
        axes.plot(times, means, label=name, linewidth=2.4 if own else 1.2, zorder=3 if own else 2)
    axes.set(xscale="log", xlabel="seconds, 2 slots", ylabel="best validation accuracy so far, mean", title=title)
    axes.set_ylim(bottom=0.4)
    axes.grid(color="#e7eaee")
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)


def summarise(found: Mapping[str, Mapping[str, Any]]) -> None:
    """The project's search against the best of the others in each figure, by data set and as means."""
    print("\n| set | area | best other | end | best other | lead at the end |")
    print("| --- | --- | --- | --- | --- | --- |")
    leads = []
    for name, tables in found.items():
        rows = tables["searches"]
        others = [row for other, row in rows.items() if other != "ours"]
        area, final = (max(row[key] for row in others) for key in ("area", "final"))
        leads.append(rows["ours"]["final"] - final)
        cells = (rows["ours"]["area"], area, rows["ours"]["final"], final)
        print(f"| {name} | {' | '.join(f'{100 * cell:.2f}' for cell in cells)} | {100 * leads[-1]:+.2f} |")
    print(f"\nlead at the end: mean {100 * statistics.mean(leads):+.2f}, least {100 * min(leads):+.2f}")
