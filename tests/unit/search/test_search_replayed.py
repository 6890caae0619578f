"""Searches over the recorded curves of real trials: what they find is what was recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from search_doubles import drive, make_plan
from test_search_migrate import space

from tlsearch.search import read_search
from tlsearch.space import Choice, FloatRange, IntRange
from tlsearch.testing.replay import Replay, read_curves

RECORDED = Path(__file__).parents[3] / "benchmarks" / "curves" / "emoji_few.json"


def test_the_recorded_curves_are_sound() -> None:
    curves = read_curves(RECORDED)
    assert {curve.config.backbone for curve in curves.curves} == {"mobilenet_v2", "timm/tf_efficientnet_lite0"}
    assert {curve.config.unfreeze_depth for curve in curves.curves} == set(range(6))
    for curve in curves.curves:
        assert curve.num_epochs == curve.max_epochs or curve.diverged_s is not None
        assert all(0 <= value <= 1 for value in curve.columns["val_accuracy"])
        assert all(value > 0 for value in curve.columns["epoch_seconds"]) and curve.opening_s >= 0
        assert len(curve.sources) == curve.num_epochs
    assert 1 / 16 < max(value for curve in curves.curves for value in curve.columns["val_accuracy"]) < 0.8


@pytest.mark.parametrize("slots", [1, 4])
def test_a_search_finds_what_was_recorded(tmp_path: Path, slots: int) -> None:
    wide = space(
        backbone=Choice(values=("mobilenet_v2", "timm/tf_efficientnet_lite0")),
        unfreeze_depth=IntRange(low=0, high=5),
        head_lr=FloatRange(low=1e-3, high=1e-2, log=True),
        backbone_lr=FloatRange(low=1e-4, high=2e-3, log=True),
    )
    curves = read_curves(RECORDED)
    plan = replace(make_plan(tmp_path / "s", trials=40, max_epochs=6), space=wide)
    assert drive(plan, slots=slots, factory=Replay(path=str(RECORDED))) == "finished"
    record = read_search(tmp_path / "s")
    for trial in record.trials:
        curve = curves.nearest(trial.config, trial.seed)
        assert [report.metrics["val_accuracy"] for report in trial.reports] == list(
            curve.columns["val_accuracy"][: trial.epochs_run]
        )
    best = max(value for curve in curves.curves for value in curve.columns["val_accuracy"])
    assert record.best is not None and record.best.best_value is not None
    assert best - 0.02 <= record.best.best_value <= best
