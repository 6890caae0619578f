"""Slots beyond two while the first looks at backbones run: they have random points, and nothing else changes."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from search_checks import check_decisions, study_trials
from search_doubles import drive, start_trial, step_once
from test_search_first_looks import THREE, WIDE, Leaning, plan_of
from test_search_migrate import space
from test_search_restarts import StopAfter

from tlsearch.config import ConstraintsSpec, Limit
from tlsearch.core.layout import SearchFolder
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.controller.controller import Controller
from tlsearch.search.controller.trial_queue import Intake
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.study.stored_reports import stored_reports

NUM_LOOKS, TRIALS = len(THREE), 24
MOST = 8  # of the 24 trials 3 are first looks, and up to 5 starting points: half of the other 16


def wide(root: Path, trials: int = TRIALS, **search: Any) -> SearchPlan:
    return plan_of(root, space(**WIDE), trials, **search)


def origins(root: Path) -> list[str]:
    return [trial.origin for trial in read_search(root).trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("seed", [1, 2])
def test_free_slots_have_random_points_that_sway_nothing(tmp_path: Path, seed: int, sampler: str) -> None:
    plan = wide(tmp_path / "s", seed=seed, sampler=sampler)
    assert drive(plan, slots=8, order=seed, factory=Leaning) == "finished"
    check_decisions(plan)
    trials, found = read_search(tmp_path / "s").trials, origins(tmp_path / "s")
    num_free = found.count("free_slot")
    assert found[:8] == ["default", "first_look", "first_look", *["free_slot"] * 5] and num_free <= len(trials) // 2
    assert [trial.reason for trial in trials[:NUM_LOOKS]] == ["completed"] * NUM_LOOKS
    last_of_looks = max(stored_reports(trial)[-1].seq for trial in study_trials(tmp_path / "s")[:NUM_LOOKS])
    firsts = {one.number: stored_reports(one)[0].seq for one in study_trials(tmp_path / "s") if stored_reports(one)}
    assert all(firsts[number] > last_of_looks for number, origin in enumerate(found) if origin == "sampler")
    if sampler == "tpe":  # a deep random trial of another backbone is better than each look
        known = [trial.config.backbone for trial in trials if trial.origin == "starting_point"]
        assert known == ["vit_b_16", "mobilenet_v2", *["vit_b_16"] * 3]
        assert num_free <= MOST


@pytest.mark.parametrize("slots", [1, 2])
def test_one_or_two_slots_search_as_before(tmp_path: Path, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def points(name: str) -> list[tuple[Any, ...]]:
        drive(wide(tmp_path / name), slots=slots, order=3, factory=Leaning)
        return [(t.params, t.origin, t.reports) for t in read_search(tmp_path / name).trials]

    now = points("now")
    monkeypatch.setattr(Intake, "free_point_left", property(lambda self: False))
    assert now == points("waits") and "free_slot" not in [origin for _, origin, _ in now]


@pytest.mark.parametrize(
    ("trials", "search", "most"),
    [
        (TRIALS, {}, MOST),
        (TRIALS, {"starting_points": "none"}, 10),
        (TRIALS, {"sampler": "random"}, 10),
        (NUM_LOOKS + 6, {}, 0),
        (TRIALS, {"constraints": ConstraintsSpec(params_millions=Limit(max=1000.0))}, 0),
    ],
)
def test_at_most_half_of_what_is_left_is_drawn_early(
    tmp_path: Path, trials: int, search: dict[str, Any], most: int
) -> None:
    """However many slots there are, and however long the looks run."""
    plan = wide(tmp_path / "s", trials, **search)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    try:
        controller = Controller(plan, study)
        begun = [job.assignment.number for _ in range(trials) if (job := controller.next_trial()) is not None]
        assert len(begun) == NUM_LOOKS + most and controller.waiting and not controller.exhausted
        for number in begun[NUM_LOOKS:]:  # their ends make room for no more of them
            runner = start_trial(controller.job(number), Leaning)
            while step_once(controller, number, runner):
                pass
        assert controller.next_trial() is None and controller.waiting
    finally:
        study.close()


@pytest.mark.parametrize("reports", range(1, 12, 2))
def test_an_interrupted_search_goes_on_with_the_same_points(tmp_path: Path, reports: int) -> None:
    plan, stop = wide(tmp_path / "s"), threading.Event()
    drive(plan, slots=5, order=1, factory=Leaning, observers=[StopAfter(stop, reports)], stop=stop)
    before = [(trial.params, trial.origin) for trial in read_search(tmp_path / "s").trials]
    assert drive(plan, slots=5, order=2, factory=Leaning) == "finished"
    check_decisions(plan)
    after = [(trial.params, trial.origin) for trial in read_search(tmp_path / "s").trials]
    assert after[: len(before)] == before and len(after) == TRIALS
    counted = Counter(origin for _, origin in after)
    assert counted["default"] + counted["first_look"] == NUM_LOOKS and counted["starting_point"] == 5


def test_after_a_crash_at_any_line_the_points_are_the_same(tmp_path: Path) -> None:
    """A point is a function of the seed and the trial's number, so that one which was lost is drawn again."""
    drive(wide(tmp_path / "whole"), slots=5, order=1, factory=Leaning)
    whole = [(trial.params, trial.origin) for trial in read_search(tmp_path / "whole").trials]
    assert [origin for _, origin in whole[:5]] == ["default", *["first_look"] * 2, *["free_slot"] * 2]
    lines = SearchFolder(root=tmp_path / "whole").journal.read_bytes().splitlines(keepends=True)
    for num in range(5, 20):  # the lines before them say what the search is
        plan = wide(tmp_path / str(num) / "s")
        plan.folder.root.mkdir(parents=True)
        plan.folder.journal.write_bytes(b"".join(lines[:num]) + lines[num][:-9])
        assert drive(plan, slots=5, order=1, factory=Leaning) == "finished"
        trials = read_search(plan.folder.root).trials
        assert [(trial.params, trial.origin) for trial in trials[:5]] == whole[:5]
        assert [trial.origin for trial in trials].count("starting_point") == 5


def test_a_proposal_that_a_crash_cut_short_is_random_again(tmp_path: Path) -> None:
    """As it could be in a database: the trial runs, and has no configuration yet."""
    drawn, cut = (wide(tmp_path / name) for name in ("drawn", "cut"))
    studies = [open_for_writing(plan.folder, attrs=study_attrs(plan)) for plan in (drawn, cut)]
    try:
        whole, half = Controller(drawn, studies[0]), Controller(cut, studies[1])
        assert all([whole.next_trial() for _ in range(5)] + [half.next_trial() for _ in range(4)])
        assert studies[1].as_optuna().ask().number == 4 and not studies[1].trial(4).params
        Controller(cut, studies[1])
        attrs = [{**study.trial(4).user_attrs, "started": 0.0} for study in studies]
        assert attrs[0] == attrs[1] and attrs[1]["origin"] == "free_slot"
        assert studies[0].trial(4).params == studies[1].trial(4).params
    finally:
        for study in studies:
            study.close()
