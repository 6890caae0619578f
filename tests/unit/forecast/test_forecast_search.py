"""The forecast of a search, from given timings: its own scheduler, its limits, and what would shorten it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_forecast_costs import TIMES

from tlsearch.config import AshaSpec, ResourcesSpec, SearchSpec
from tlsearch.core.types import DataSpec, ModelSpec, TrialConfig, TrialSetup
from tlsearch.forecast.forecast import Forecast, Interval, forecast
from tlsearch.forecast.savings import _changes, savings
from tlsearch.forecast.trial_costs import Images, Node, TrialCosts
from tlsearch.search import SearchPlan
from tlsearch.space import image_sizes_of, load

SPACE = """
name: forecast
data: {source: digits}
weights: {mobilenet_v2: none, resnet18: none}
space:
  backbone: [mobilenet_v2, resnet18]
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
"""


@pytest.fixture
def plan(tmp_path: Path) -> SearchPlan:
    (tmp_path / "space.yaml").write_text(SPACE)
    return SearchPlan(
        search_id="x",
        experiment="x",
        directory=os.devnull,
        space=load(tmp_path / "space.yaml")[1],
        setup=TrialSetup(data=DataSpec(source="digits"), max_epochs=9, depths=(0, 1, 2)),
        search=SearchSpec(
            trials=12, max_epochs=9, sampler="random", scheduler=AshaSpec(grace_period=1, reduction_factor=3)
        ),
        resources=ResourcesSpec(),
    )


def costs_of(plan: SearchPlan) -> TrialCosts:
    images = Images(num_train=100, num_val=10, decode_s=0.01, prepare_s=dict.fromkeys(("none", "light", "strong"), 0.0))
    specs = [
        ModelSpec.of(TrialConfig(backbone=name, image_size=size), plan.setup.data, 3)
        for name in plan.space.backbones()
        for size in image_sizes_of(plan.space, name)
    ]
    return TrialCosts(
        images=images,
        models={spec: TIMES.at_pixels(((spec.image_size or 224) / 224) ** 2) for spec in specs},
        sides={spec: (spec.image_size or 224, spec.image_size or 256) for spec in specs},
        setup=plan.setup,
        num_classes=3,
        room_bytes=1e9,
    )


def forecast_of(plan: SearchPlan, *, slots: int = 2, **changes: Any) -> Forecast:
    given = {"slots": slots, "start_s": 10.0, "stored": Node(), "simulations": 6, **changes}
    return forecast(plan, costs_of(plan), **given)


def test_the_interval_holds_its_median_and_the_rungs_thin_out(plan: SearchPlan) -> None:
    found = forecast_of(plan)
    assert 0 < found.wall_s.low <= found.wall_s.median <= found.wall_s.high
    assert list(found.rungs) == [1, 3, 9] and found.trials == 12
    assert found.rungs[1] == 12 > found.rungs[3] > found.rungs[9] >= 2  # the two first looks are never cut
    assert found.busy_s >= found.wall_s.median - 12 and len(found.work_s) == 12


def test_twice_the_slots_and_no_scheduler_do_what_they_should(plan: SearchPlan) -> None:
    base = forecast_of(plan).wall_s.median
    assert forecast_of(plan, slots=1).wall_s.median > 1.3 * base
    whole = replace(plan, search=replace(plan.search, scheduler=None))
    assert forecast_of(whole).wall_s.median > 1.3 * base and forecast_of(whole).mean_epochs == 9


def test_a_time_budget_ends_the_search(plan: SearchPlan) -> None:
    short = replace(plan, search=replace(plan.search, time_budget_s=400.0))
    found = forecast_of(short)
    assert found.wall_s.high < 450.0 and found.trials < 12


def test_a_long_search_is_not_simulated_whole(plan: SearchPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.forecast.forecast._MOST_TRIALS", 12)
    long = forecast_of(replace(plan, search=replace(plan.search, trials=120)), simulations=3)
    short = forecast_of(plan, simulations=3)
    assert long.scaled and long.trials == 120
    assert long.wall_s.median == pytest.approx(10 * short.wall_s.median, rel=0.1)
    assert long.work_left_s(20, 120) == pytest.approx(100 * sum(short.work_s[-20:]) / len(short.work_s[-20:]))


def test_what_would_shorten_it_is_named_in_order(plan: SearchPlan) -> None:
    plan = replace(plan, search=replace(plan.search, trials=48))
    found = savings(plan, costs_of(plan), slots=2, start_s=10.0, stored=Node())
    fractions = [one.fraction for one in found]
    assert found and fractions == sorted(fractions) and fractions[0] < 0.7
    named = " ".join(one.change for one in found)
    assert "search.trials: 24" in named and "data.image_size: 168" in named


def test_quantiles_lie_between_values() -> None:
    assert Interval.of([3.0, 1.0, 2.0]) == Interval(low=1.2, median=2.0, high=2.8)


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ("[64, 112, 224]", "112"),
        ("{int: [32, 224], step: 32}", "128"),
        ("[224]", None),
        ("{int: [64, 96], step: 32}", None),
    ],
)
def test_smaller_images_of_a_searched_size_are_named(
    plan: SearchPlan, tmp_path: Path, sizes: str, kept: str | None
) -> None:
    (tmp_path / "sized.yaml").write_text(f"{SPACE.rstrip()}\n  image_size: {sizes}\n")
    sized = replace(plan, space=load(tmp_path / "sized.yaml")[1])
    named = {one.change for one in _changes(sized, costs_of(sized)) if "image_size" in one.change}
    assert named == ({f"space.image_size at most {kept}"} if kept else set())
