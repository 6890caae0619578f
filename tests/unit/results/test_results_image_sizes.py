"""A search over image sizes as its report shows it: groups by size, and columns of models that cost alike."""

from __future__ import annotations

from dataclasses import replace

from search_records import make_facts, make_trial, record_of

from tlsearch.core.types import SearchRecord, TrialRecord
from tlsearch.results.leaderboard.leaderboard import leaderboard
from tlsearch.results.leaderboard.search_facts import SearchFacts
from tlsearch.results.report.findings import by_image_size
from tlsearch.results.report.plots.parameters import plot_slices
from tlsearch.results.report.plots.timing import paces
from tlsearch.results.report.plots.tradeoffs import plot_latency, plot_size
from tlsearch.results.report.plots.view import View

SIZES = (128, 64, 96, 64, 128, 96)


def sized(number: int, size: int | None) -> TrialRecord:
    trial = make_trial(number, [0.4, 0.4 + 0.001 * (size or 300)], params={"image_size": size} if size else {})
    return replace(trial, config=replace(trial.config, image_size=size))


def view_of(record: SearchRecord, facts: SearchFacts) -> View:
    return View(record=record, rows=leaderboard(record, {}, facts), facts=facts)


def searched(*sizes: int | None) -> View:
    record = record_of([sized(number, size) for number, size in enumerate(sizes)])
    names = [trial.config.model for trial in record.trials]
    latency = {trial.config.model: float(trial.config.image_size or 224) for trial in record.trials}
    facts = replace(make_facts(), parameters=dict.fromkeys(names, 11_000_000), latency_ms=latency, latency_on="a CPU")
    return view_of(record, facts)


def test_the_metric_by_size() -> None:
    view = searched(*SIZES, None)
    groups = by_image_size(view)
    assert [(group.name, group.trials) for group in groups] == [
        ("the weights' own", 1),
        ("64", 2),
        ("96", 2),
        ("128", 2),
    ]
    assert groups[1].best is not None and groups[1].best.best_value == 0.464
    assert by_image_size(searched(64, 64)) == [] == by_image_size(searched(None, None))
    plot = plot_slices(view)
    assert ">image_size</text>" in plot.svg and all(f">{size}</text>" in plot.svg for size in (64, 96, 128))


def test_models_are_named_by_what_they_cost() -> None:
    view = searched(*SIZES)
    latency, size = plot_latency(view), plot_size(view)
    assert all(f">resnet18 at {px} px</text>" in latency.svg for px in (64, 96, 128))
    assert ">resnet18</text>" in size.svg and " px</text>" not in size.svg  # all sizes have the same parameters
    assert view.by_trial[1].latency_ms == 64.0 and view.by_trial[0].parameters == 11_000_000


def test_epochs_of_two_sizes_are_timed_apart() -> None:
    assert [(pace.model, pace.epochs) for pace in paces(searched(64, 64, 96))] == [
        ("resnet18 at 64 px", 4),
        ("resnet18 at 96 px", 2),
    ]
