"""``search.stop: auto``: how likely the trials that are left gain 0.2 points, and a search that ends by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flat_trials import Flat
from search_doubles import drive, make_plan
from test_search_controller import Clock

from tlsearch.core.types import EpochReport, Objective, TrialState
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.scheduling.plateau import EndedTrial, Outlook, outlook

CLOSE = [0.7 + 0.00001 * place for place in range(40)]
APART = [0.3 + 0.01 * place for place in range(40)]


def of(gains: Sequence[float | None], left: int, *, origin: str = "sampler", ceiling: float = 1.0) -> Outlook:
    return outlook([EndedTrial(gain=gain, origin=origin) for gain in gains], left=left, ceiling=ceiling)


def test_wide_gaps_alone_leave_the_chance_of_equal_draws() -> None:
    """The best of j further draws beats that of n with j / (n + j); no margin matters where values are far apart."""
    far = [1000.0 * place for place in range(30)]
    assert of(far, 10, ceiling=math.inf).chance == pytest.approx(10 / 40, abs=1e-4)
    assert of(far, 90, ceiling=math.inf).chance == pytest.approx(90 / 120, abs=1e-4)


def test_values_that_lie_close_plateau_and_others_do_not() -> None:
    assert of(CLOSE, 10).plateaued
    assert not of(APART, 10).plateaued
    assert of(APART, 1).plateaued, "one trial after forty"
    assert of(CLOSE, 10).excess < 0.0001 < of(APART, 10).excess


def test_the_chance_grows_with_the_trials_that_are_left_and_falls_with_those_that_have_ended() -> None:
    chances = [of(APART, left).chance for left in (1, 2, 5, 20, 200, 10**6)]
    assert chances == sorted(chances) and chances[-1] > 0.99
    assert of([*APART, *[0.2] * 40], 10).chance < of(APART, 10).chance
    exact, mean = (of(APART, left).chance for left in (100, 140))  # past a hundred draws by their mean
    assert exact < mean < exact + 0.1


def test_ties_plateau_but_not_at_once() -> None:
    assert not of([0.7] * 4, 40).plateaued
    assert of([0.7] * 40, 8).plateaued


def test_trials_without_a_result_count_as_tries_alone() -> None:
    failed: list[float | None] = [None, math.nan, math.inf]
    assert of([*APART, *failed], 10) == replace(of([*APART, 0.0, 0.0, 0.0], 10), excess=of(APART, 10).excess)
    assert of([None] * 50, 5).chance == of([0.5, *[None] * 50], 5).chance == 1.0, "nothing to go by"


def test_nothing_is_said_before_the_sampler_has_had_its_turn() -> None:
    assert of(CLOSE, 5, origin="start_with").chance == 1.0
    points = [EndedTrial(gain=0.7, origin="first_look")] * 30
    assert outlook([*points, *[EndedTrial(gain=0.7, origin="sampler")] * 3], left=5, ceiling=1.0).chance == 1.0


def test_starting_points_count_as_many_random_ones() -> None:
    drawn = [EndedTrial(gain=gain, origin="sampler") for gain in APART]
    known = EndedTrial(gain=0.1, origin="starting_point")
    assert outlook([*drawn, known], left=9, ceiling=1.0).chance < outlook(drawn, left=9, ceiling=1.0).chance


def test_no_gain_lies_beyond_the_best_that_there_is() -> None:
    assert of([*APART, 0.9985], 1000).chance == 0.0
    assert of([*APART, 0.998], 1000).chance > 0.5, "0.2 points are left"
    losses = [-gain for gain in APART]
    assert of([*losses, -0.001], 1000, ceiling=0.0).chance == 0.0
    assert Objective.of("val_loss").gain(0.0) == 0.0


def plan_of(root: Path, trials: int = 60, *, metric: str = "val_accuracy", **options: Any) -> SearchPlan:
    plan = make_plan(root, **{"trials": trials, "max_epochs": 2, "stop": "auto", "metric": metric, **options})
    return replace(plan, setup=replace(plan.setup, metric=metric))


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_that_plateaus_ends_and_says_so(tmp_path: Path, metric: str, slots: int) -> None:
    plan = plan_of(tmp_path / "s", metric=metric)
    assert drive(plan, slots=slots, factory=Flat) == "plateaued"
    record = read_search(tmp_path / "s")
    found = record.plateau
    assert found is not None and 8 < found.trials == len(record.trials) < 45
    assert (found.limit, found.saved) == (60, 60 - len(record.trials))
    assert 0 < found.chance < 0.1 and all(trial.state is not TrialState.RUNNING for trial in record.trials)
    assert drive(plan, slots=slots, factory=Flat) == "plateaued", "a resume has nothing to do"
    assert read_search(tmp_path / "s") == record


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    assert drive(plan_of(tmp_path / "s", 40, stop="none"), factory=Flat) == "finished"
    assert read_search(tmp_path / "s").plateau is None and len(read_search(tmp_path / "s").trials) == 40


def test_a_search_goes_on_as_asked_after_it_has_plateaued(tmp_path: Path) -> None:
    drive(plan_of(tmp_path / "s"), factory=Flat)
    ended = len(read_search(tmp_path / "s").trials)
    assert drive(plan_of(tmp_path / "s", 62), factory=Flat) == "finished", "more trials were asked for: they are run"
    assert ended < len(read_search(tmp_path / "s").trials) == 62 and read_search(tmp_path / "s").plateau is None
    drive(plan_of(tmp_path / "t"), factory=Flat)
    assert drive(plan_of(tmp_path / "t", stop="none"), factory=Flat) == "finished"
    assert len(read_search(tmp_path / "t").trials) == 60


def test_a_resumed_search_ends_where_it_would_have(tmp_path: Path) -> None:
    drive(plan_of(tmp_path / "whole"), factory=Flat)
    for limit in (5, 11, 19):
        drive(plan_of(tmp_path / "parts", limit, stop="none"), factory=Flat)
    drive(plan_of(tmp_path / "parts"), factory=Flat)
    whole, parts = (read_search(tmp_path / name) for name in ("whole", "parts"))
    assert [trial.params for trial in whole.trials] == [trial.params for trial in parts.trials]
    assert whole.plateau == parts.plateau is not None


@pytest.mark.parametrize("slots", [1, 3])
def test_of_the_time_budget_and_the_plateau_the_first_ends_it(tmp_path: Path, slots: int) -> None:
    drive(plan_of(tmp_path / "whole"), slots=slots, factory=Flat)
    whole = read_search(tmp_path / "whole")
    long, short = (plan_of(tmp_path / "s", time_budget_s=time_s, on_budget="finish") for time_s in (1e6, 60.0))
    assert drive(short, slots=slots, factory=Flat, timer=Clock()) == "budget"
    record = read_search(tmp_path / "s")
    assert record.plateau is None and 1 < len(record.trials) < len(whole.trials)
    assert drive(short, slots=slots, factory=Flat, timer=Clock()) == "budget", "a resume has no time left"
    assert drive(long, slots=slots, factory=Flat, timer=Clock()) == "plateaued"
    assert read_search(tmp_path / "s").plateau is not None
    if slots == 1:  # the time between has changed nothing
        assert read_search(tmp_path / "s").plateau == whole.plateau


def test_a_time_that_ends_before_the_running_trials_of_a_plateau_counts_as_first(tmp_path: Path) -> None:
    """The search looks again when they have ended; until then it may go on."""
    drive(plan_of(tmp_path / "whole"), slots=3, factory=Flat)
    last = len(read_search(tmp_path / "whole").trials) - 1
    clock = Clock()

    class Late(Flat):
        def step(self) -> EpochReport:
            clock.now += 1e6 * (self._number == last)
            return super().step()

    plan = plan_of(tmp_path / "s", time_budget_s=1e6, on_budget="finish")
    assert drive(plan, slots=3, factory=Late, timer=clock) == "budget"
    record = read_search(tmp_path / "s")
    assert record.plateau is None and len(record.trials) == last + 1
    assert drive(replace(plan, search=replace(plan.search, time_budget_s=1e9)), slots=3, factory=Flat) == "plateaued"
    assert len(read_search(tmp_path / "s").trials) == last + 1, "it had plateaued"


def test_failed_trials_neither_end_nor_mislead_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", max_failed_trials=99)

    class Failing(Flat):
        def step(self) -> EpochReport:
            if self._number % 3 == 2:
                raise RuntimeError("no such thing")
            return super().step()

    assert drive(plan, factory=Failing) == "plateaued"
    assert any(trial.state is TrialState.FAILED for trial in read_search(tmp_path / "s").trials)


def test_running_trials_may_take_it_back(tmp_path: Path) -> None:
    """What runs when the chance falls below the limit ends first; the search looks again with what it found."""
    drive(plan_of(tmp_path / "flat"), slots=3, factory=Flat)
    last = len(read_search(tmp_path / "flat").trials) - 1

    class Late(Flat):
        def step(self) -> EpochReport:
            report = super().step()
            if self._number == last:
                report = self.reports[-1] = replace(report, metrics={"val_accuracy": 0.8, "val_loss": 0.2})
            return report

    assert drive(plan_of(tmp_path / "late"), slots=3, factory=Late) in ("plateaued", "finished")
    assert len(read_search(tmp_path / "late").trials) > last + 1
