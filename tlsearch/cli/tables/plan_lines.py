"""What ``plan`` found, for people: the times first, then what they are made of, then what would shorten them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tlsearch.core.text import about_s, format_s, plural

if TYPE_CHECKING:
    from tlsearch.app.checks.planning import PlanReport
    from tlsearch.forecast.forecast import Forecast

_GB = 1e9


def plan_lines(report: PlanReport) -> Iterator[str]:
    """One fact a line."""
    first, slots = report.with_cache, report.slots
    yield f"expected time: {_times(first)}; of it {format_s(first.start_s)} for starting Ray and ending"
    if report.screen is not None:
        screen = report.screen
        yield (
            f"{plural(screen.backbones, 'backbone')} are screened first, one pass over {screen.images:,} images each: "
            f"{about_s(screen.seconds)} of the times above, which are as if all were kept"
        )
    if report.without_cache is not None:
        yield f"without cached features: {_times(report.without_cache)}"
    unit, per_trial = ("GPU", slots.gpus) if slots.gpus else ("core", float(slots.cpus))
    yield f"{_hours(first.busy_s * per_trial / 3600)} {unit}-hours, {plural(slots.count, 'trial')} at a time"
    yield f"{_count(first.trials)} trials of {first.mean_epochs:.1f} {report.unit}s on average; {_rungs(first.rungs)}"
    measured = report.measured
    disk = (
        ("packed images", measured.image_bytes),
        ("cached features", measured.feature_bytes),
        ("models and checkpoints", measured.checkpoint_bytes),
    )
    yield "disk, at most: " + ", ".join(f"{num_bytes / _GB:.2f} GB of {what}" for what, num_bytes in disk)
    memory = ", ".join(f"{name} {num_bytes / _GB:.1f} GB" for name, num_bytes in measured.trial_bytes.items())
    yield f"memory of one trial, at most: {memory}"
    if slots.packed_bytes:
        yield (
            f"a GPU of {slots.packed_bytes / _GB:.0f} GB holds {plural(report.trials_per_gpu, 'such trial')} by its "
            "memory; the search shares GPUs where trials leave them idle, on which the times above do not count"
        )
    if measured.stored.stored:
        yield f"{plural(len(measured.stored.stored), 'cached entry', 'cached entries')} of these images are used again"
    if first.scaled:
        yield "the search is longer than what was simulated: the later trials are taken to go on at the same rate"
    if report.may_stop:
        yield "search.stop: auto may end the search earlier; the times above are those of all its trials"
    yield from _saving_lines(report)
    if report.advice:
        yield report.advice


def _saving_lines(report: PlanReport) -> Iterator[str]:
    if report.savings:
        yield "what would shorten it:"
    for one in report.savings:
        left_s = report.with_cache.wall_s.median * one.fraction
        yield f"  {one.change}: {about_s(left_s)} ({one.fraction:.0%})"


def _times(one: Forecast) -> str:
    wall = one.wall_s
    return f"{format_s(wall.low)} to {format_s(wall.high)}, median {format_s(wall.median)}"


def _rungs(rungs: Mapping[int, float]) -> str:
    return ", ".join(f"{_count(count)} reach epoch {epoch}" for epoch, count in rungs.items())


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2f}"
