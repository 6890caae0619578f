"""The simulated cluster of benchmarks/: what it charges, and that the comparison runs from end to end."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_search_migrate import space

from tlsearch.core.types import EpochReport, TrialConfig
from tlsearch.forecast.simulation import HANDOUT_S, Start
from tlsearch.space import Choice, FloatRange, IntRange
from tlsearch.testing.replay import Curve, Curves, read_curves, write_curves

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def simulated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated", BENCHMARKS / "simulated.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["simulated"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HEAD, DEEP = TrialConfig(backbone="a"), TrialConfig(backbone="a", unfreeze_depth=5, backbone_lr=1e-4)


def curve(config: TrialConfig, opening_s: float, epoch_s: float, values: tuple[float, ...]) -> Curve:
    columns = {"val_accuracy": values, "epoch_seconds": (epoch_s,) * len(values)}
    return Curve(config=config, seed=0, max_epochs=3, columns=columns, opening_s=opening_s, diverged_s=2.0)


CURVES = Curves(
    curves=(
        curve(HEAD, 5.0, 0.1, (0.3, 0.4, 0.5)),
        curve(replace(HEAD, head_lr=0.1), 0.0, 0.1, (0.2,)),
        curve(DEEP, 4.0, 10.0, (0.6, 0.7, 0.8)),
    )
)


class Scripted:
    """Starts the configurations of a list, lets each run to its end, and notes when it hears what."""

    def __init__(self, configs: list[TrialConfig], suggest_s: float = 0.0) -> None:
        self._configs, self._suggest_s = list(configs), suggest_s
        self.heard: list[tuple[float, int, int]] = []
        self._number = -1

    def next(self, now: float) -> Any:
        if not self._configs:
            return None
        self._number += 1
        config = self._configs.pop(0)
        return Start(number=self._number, config=config, seed=0, suggest_s=self._suggest_s)

    def report(self, number: int, report: EpochReport, now: float) -> bool:
        self.heard.append((round(now, 6), number, report.epoch))
        return report.epoch < 3

    def diverged(self, number: int, now: float) -> None:
        self.heard.append((round(now, 6), number, 0))


def play(simulated: ModuleType, searcher: Scripted, slots: int = 1, horizon_s: float = 100.0) -> Any:
    return simulated.replayed(searcher, CURVES, slots=slots, horizon_s=horizon_s, metric="val_accuracy", sign=1.0)


def test_what_is_stored_first_is_charged_once(simulated: ModuleType) -> None:
    searcher = Scripted([HEAD, HEAD, DEEP])
    trace = play(simulated, searcher)
    start_s = HANDOUT_S
    first = start_s + 5.0 + 0.1
    assert searcher.heard[0] == (pytest.approx(first), 0, 1)
    assert searcher.heard[3] == (pytest.approx(first + 0.2 + start_s + 0.1), 1, 1)
    assert searcher.heard[6] == (pytest.approx(first + 0.2 + start_s + 0.3 + start_s + 4.0 + 10.0), 2, 1)
    assert trace.best[0] == (pytest.approx(first), 0.3) and trace.best[-1][1] == 0.8
    assert (trace.num_trials, trace.num_epochs) == (3, 9)


def test_slots_run_side_by_side_and_proposals_one_after_the_other(simulated: ModuleType) -> None:
    searcher = Scripted([DEEP, DEEP], suggest_s=1.0)
    trace = play(simulated, searcher, slots=2)
    first_epochs = [now for now, _, epoch in searcher.heard if epoch == 1]
    # the first one builds the store; the second one does not wait for it, but for the driver
    assert first_epochs == pytest.approx([2.0 + HANDOUT_S + 10.0, 1.0 + HANDOUT_S + 14.0])
    assert trace.suggest_s == 2.0


def test_a_trial_that_diverges_has_cost_its_time(simulated: ModuleType) -> None:
    searcher = Scripted([replace(HEAD, head_lr=0.1)])
    play(simulated, searcher)
    start_s = HANDOUT_S + 5.0  # it shares what is stored with the head-only trial that was recorded first
    assert searcher.heard == [(pytest.approx(start_s + 0.1), 0, 1), (pytest.approx(start_s + 2.1), 0, 0)]


def test_the_area_is_the_mean_over_time(simulated: ModuleType) -> None:
    trace = simulated.Trace(best=((10.0, 0.5), (50.0, 0.8)), num_trials=1, num_epochs=1, busy_s=0.0, suggest_s=0.0)
    assert trace.area(100.0, 0.1) == pytest.approx(0.1 * 0.1 + 0.4 * 0.5 + 0.5 * 0.8)
    assert trace.area(20.0, 0.1) == pytest.approx(0.5 * 0.1 + 0.5 * 0.5)
    assert (trace.at(9.0, 0.1), trace.at(10.0, 0.1), trace.at(99.0, 0.1)) == (0.1, 0.5, 0.8)


def test_between_recorded_curves_lie_others(simulated: ModuleType) -> None:
    between = simulated.Between(CURVES, "val_accuracy")
    middle = replace(DEEP, unfreeze_depth=3)
    made = between.nearest(middle, 1)
    assert made == between.nearest(middle, 1)
    assert all(0.3 < value < 0.8 for value in made.columns["val_accuracy"])
    assert made.columns["epoch_seconds"] == (10.0,) * 3  # the nearest depth's
    assert made.columns != between.nearest(replace(middle, backbone_lr=2e-4), 1).columns
    assert between.nearest(replace(HEAD, head_lr=0.09), 1).num_epochs == 1  # it diverges as its neighbour did


@pytest.mark.slow
def test_the_comparison_runs_from_end_to_end(tmp_path: Path) -> None:
    few = read_curves(BENCHMARKS / "curves" / "emoji_few.json")
    wide = space(
        backbone=Choice(values=("mobilenet_v2", "timm/tf_efficientnet_lite0")),
        unfreeze_depth=IntRange(low=0, high=5),
        head_lr=FloatRange(low=1e-3, high=1e-2, log=True),
        backbone_lr=FloatRange(low=1e-4, high=2e-3, log=True),
    )
    write_curves(tmp_path / "few.json", replace(few, about={**few.about, "space": wide.to_json()}))
    arguments = ["few.json", "--quick", "--json", "found.json", "--plot", "plot.png"]
    command = [sys.executable, str(BENCHMARKS / "search_quality.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["few"]
    assert found["searches"]["ours"]["area"] > 0.5 and found["searches"]["ours"]["against_ours"] == [0.0, 0.0, 0.0]
    assert len(found["searches"]) == 3 and (tmp_path / "plot_few.png").stat().st_size > 1000
