"""The first look at each backbone, and configurations that are never trained twice."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search_checks import behave, check_decisions, study_trials
from search_doubles import QuickTrial, StubTrial, drive, make_plan, start_trial, step_once
from test_search_migrate import space
from test_search_restarts import StopAfter

from tlsearch.config import AshaSpec
from tlsearch.core.types import EpochReport, ModelSpec, StartReport, TrialState
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.controller.controller import Controller
from tlsearch.search.sampling.points import first_points
from tlsearch.search.sampling.untried import untried_point
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.study.stored_reports import stored_reports
from tlsearch.space import Choice, Fixed, FloatRange, IntRange, Space

THREE = ("resnet18", "mobilenet_v2", "vit_b_16")
WIDE: Mapping[str, Any] = {
    "backbone": Choice(values=THREE),
    "unfreeze_depth": IntRange(low=0, high=5),
    "backbone_lr": FloatRange(low=1e-6, high=1e-3, log=True),
}
SMALL = space(
    backbone=Fixed(value="resnet18"),
    unfreeze_depth=IntRange(low=0, high=1),
    head_lr=Choice(values=(1e-3, 1e-2)),
    backbone_lr=Fixed(value=1e-4),
    weight_decay=FloatRange(low=0.0, high=0.3, step=0.1),
)
NUM_SMALL = 2 * 2 * 4


def plan_of(root: Path, of: Space, trials: int, **search: Any) -> SearchPlan:
    return replace(make_plan(root, trials=trials, **search), space=of)


class Leaning(StubTrial):
    """A backbone's head is the better the later the space lists it; the deeper, the better."""

    def step(self) -> EpochReport:
        config = self._assignment.config
        value = 0.1 + 0.1 * THREE.index(config.backbone) + 0.05 * config.unfreeze_depth
        report = super().step()
        return replace(report, metrics={**report.metrics, "val_accuracy": value})


def began_before(root: Path) -> dict[int, int]:
    """By trial its first report's place in the sequence of all reports."""
    return {t.number: stored_reports(t)[0].seq for t in study_trials(root) if stored_reports(t)}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_backbone_is_seen_in_full_before_any_deep_trial(
    tmp_path: Path, seed: int, slots: int, sampler: str
) -> None:
    """Workers report in random order; ASHA cuts hard. For more slots see ``test_search_free_slots.py``."""
    plan = plan_of(tmp_path / "s", space(**WIDE), 8, seed=seed, sampler=sampler)
    assert drive(plan, slots=slots, order=seed, factory=Leaning) == "finished"
    check_decisions(plan)
    trials = read_search(tmp_path / "s").trials
    looks, others = trials[:3], trials[3:]
    assert {trial.config.backbone for trial in looks} == set(THREE) and len(trials) == 8
    assert all(trial.config.unfreeze_depth == 0 and trial.config.augmentation == "none" for trial in looks)
    assert all(trial.reason == "completed" and trial.epochs_run == 4 for trial in looks)
    attrs = [trial.user_attrs for trial in study_trials(tmp_path / "s")]
    assert [trial.origin for trial in looks] == ["default", "first_look", "first_look"]
    assert [one.get("first_look", False) for one in attrs] == [True] * 3 + [False] * 5
    last_of_looks = max(stored_reports(trial)[-1].seq for trial in study_trials(tmp_path / "s")[:3])
    assert all(began_before(tmp_path / "s")[trial.number] > last_of_looks for trial in others)
    if sampler == "tpe":
        assert [one["origin"] for one in attrs[3:]] == ["starting_point"] * 5
        best, second, *rest = [trial.config.backbone for trial in others]
        assert (best, second) == ("vit_b_16", "mobilenet_v2") and set(rest) == {"vit_b_16"}
        assert others[0].config.unfreeze_depth == others[1].config.unfreeze_depth == 1


def test_the_order_of_the_list_decides_nothing(tmp_path: Path) -> None:
    chosen = set()
    for number, names in enumerate(itertools.permutations(THREE)):
        of = space(**{**WIDE, "backbone": Choice(values=names)})
        drive(plan_of(tmp_path / str(number), of, 7), slots=2, factory=Leaning)
        chosen.add(tuple(trial.config.backbone for trial in read_search(tmp_path / str(number)).trials[3:]))
    assert chosen == {("vit_b_16", "mobilenet_v2", "vit_b_16", "vit_b_16")}


def test_deeper_trials_overrule_the_first_looks(tmp_path: Path) -> None:
    """Heads alone rank backbones otherwise than their last stages do: the two best are compared once more."""

    class Otherwise(Leaning):
        def step(self) -> EpochReport:
            report = super().step()
            deep = self._assignment.config.unfreeze_depth > 0 and self._assignment.config.backbone == "mobilenet_v2"
            return replace(report, metrics={**report.metrics, "val_accuracy": 0.9}) if deep else report

    drive(plan_of(tmp_path / "s", space(**WIDE), 8), slots=1, factory=Otherwise)
    chosen = [trial.config.backbone for trial in read_search(tmp_path / "s").trials[3:]]
    assert chosen == ["vit_b_16", "mobilenet_v2", "mobilenet_v2", "mobilenet_v2", "mobilenet_v2"]


class StartsHigh(Leaning):
    """Training takes the solved head of the first backbone down."""

    def step(self) -> EpochReport:
        report = super().step()
        if report.epoch > 1 or self._assignment.config.backbone != THREE[0]:
            return report
        return replace(report, start=StartReport(metrics={"val_accuracy": 0.9}, timestamp=report.timestamp))


def test_a_backbones_solved_head_counts_in_its_look(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", space(**WIDE), 4)
    assert drive(plan, factory=StartsHigh) == "finished"
    trials = read_search(tmp_path / "s").trials
    assert all(trial.best_value == 0.9 for trial in trials if trial.config.backbone == THREE[0])
    assert trials[3].config.backbone == THREE[0] and trials[3].config.unfreeze_depth > 0


def test_one_backbone_needs_no_look(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", space(), 3)
    assert [point.first_look for point in first_points(plan)] == [False]


def test_the_shallowest_depth_where_there_is_no_head_only_trial(tmp_path: Path) -> None:
    of = space(**{**WIDE, "unfreeze_depth": IntRange(low=2, high=5)})
    points = first_points(plan_of(tmp_path / "s", of, 8))
    assert [point.values["unfreeze_depth"] for point in points] == [2, 2, 2]
    assert {point.values["backbone"] for point in points} == set(THREE) and all(one.first_look for one in points)


def test_a_users_own_point_may_be_the_look(tmp_path: Path) -> None:
    entries: tuple[Any, ...] = ({"unfreeze_depth": 5}, {"backbone": "vit_b_16"})
    points = first_points(plan_of(tmp_path / "s", space(**WIDE), 8, start_with=entries))
    told = [(one.values["backbone"], one.origin, one.first_look) for one in points]
    assert told == [
        ("resnet18", "start_with", False),
        ("vit_b_16", "start_with", True),
        ("resnet18", "default", True),
        ("mobilenet_v2", "first_look", True),
    ]


def test_with_more_backbones_than_trials_the_seed_decides_which_are_looked_at(tmp_path: Path) -> None:
    seen = set()
    for seed in range(8):
        root = tmp_path / str(seed)
        drive(plan_of(root, space(**WIDE), 2, seed=seed), factory=QuickTrial)
        seen.add(tuple(trial.config.backbone for trial in read_search(root).trials))
    assert seen == {("resnet18", "mobilenet_v2"), ("resnet18", "vit_b_16")}


def test_a_backbone_beyond_the_limits_is_not_looked_at(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", space(**WIDE), 6)
    limits = replace(plan.search.constraints, params_millions=_limit(20.0))
    specs = [ModelSpec(backbone=name, num_classes=plan.num_classes) for name in THREE]
    sizes = {spec: {"params_millions": size} for spec, size in zip(specs, (11.0, 3.0, 86.0), strict=True)}
    plan = replace(plan, search=replace(plan.search, constraints=limits), sizes=sizes)
    assert {one.values["backbone"] for one in first_points(plan)} == {"resnet18", "mobilenet_v2"}


def _limit(size: float) -> Any:
    from tlsearch.config.search_section import Limit

    return Limit(max=size)


@pytest.mark.parametrize("kind", ["diverge", "memory", "error"])
def test_a_look_that_ends_badly_holds_up_nobody(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "s"
    behave(root, {"1": {"kind": kind, "epoch": 1}})
    assert drive(plan_of(root, space(**WIDE), 7), slots=3, factory=Leaning) == "finished"
    trials = read_search(root).trials
    assert len(trials) == 7 and trials[1].epochs_run == 0
    bad = trials[1].config
    assert all(trial.config != bad for trial in trials[2:]), "it is not tried again"


def test_nothing_is_proposed_while_a_look_runs_unless_it_is_silent_for_long(tmp_path: Path) -> None:
    now = [0.0]
    plan = plan_of(tmp_path / "s", space(**WIDE), 8, max_failures=1)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    try:
        controller = Controller(plan, study, timer=lambda: now[0])
        handouts = [controller.next_trial() for _ in range(3)]
        runners = {one.assignment.number: start_trial(one, Leaning) for one in handouts if one}
        assert len(runners) == 3 and controller.next_trial() is None
        assert controller.waiting and not controller.exhausted, "it is asked again"
        for number in (0, 2):
            while step_once(controller, number, runners[number]):
                pass
        now[0] = 1100.0
        step_once(controller, 1, runners[1])
        now[0] = 2200.0
        assert controller.next_trial() is None, "it has reported 1100 s ago"
        now[0] = 2400.0
        assert controller.next_trial() is not None, (
            "it has said nothing for ten minutes, and for ten more for its retry"
        )
        assert step_once(controller, 1, runners[1]), "it may go on"
    finally:
        study.close()


@pytest.mark.parametrize("why", ["stop", "time"])
def test_a_stop_and_the_end_of_the_time_are_heeded_while_looks_run(tmp_path: Path, why: str) -> None:
    now, stop = [0.0], threading.Event()
    plan = plan_of(tmp_path / "s", space(**WIDE), 8, time_budget_s=60.0)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    try:
        controller = Controller(plan, study, timer=lambda: now[0], stop=stop)
        handouts = [controller.next_trial() for _ in range(4)]
        assert handouts[3] is None and not controller.exhausted
        if why == "stop":
            stop.set()
        now[0] = 61.0
        assert controller.exhausted and controller.next_trial() is None
        assert controller.reason == "interrupted"
    finally:
        study.close()


@pytest.mark.parametrize("reports", range(1, 16))
def test_an_interrupted_search_decides_as_the_uninterrupted_one(tmp_path: Path, reports: int) -> None:
    """Interrupted among the looks, and after them; one trial at a time."""
    whole, parts = (plan_of(tmp_path / name, space(**WIDE), 8, seed=2) for name in ("whole", "parts"))
    drive(whole, factory=Leaning)
    stop = threading.Event()
    drive(parts, factory=Leaning, observers=[StopAfter(stop, reports)], stop=stop)
    assert drive(parts, factory=Leaning) == "finished"
    told = [[(t.params, t.epochs_run, t.reason) for t in read_search(Path(p.directory)).trials] for p in (whole, parts)]
    assert told[0] == told[1]


def test_a_study_of_an_earlier_version_goes_on_without_looks(tmp_path: Path) -> None:
    """Its first points waited without saying why they are tried; nothing is put between them and the others."""
    of = space(**WIDE)
    plan = plan_of(tmp_path / "s", of, 8)
    study = open_for_writing(plan.folder, attrs=study_attrs(plan))
    old = [of.complete({}), *(of.complete({"backbone": name}) for name in THREE[1:])]  # as with probe_first
    study.enqueue(old)
    study.close()
    assert drive(plan, slots=2, factory=Leaning) == "finished"
    trials = read_search(tmp_path / "s").trials
    assert len(trials) == 8 and len({str(trial.params) for trial in trials}) == 8
    assert [trial.config.unfreeze_depth for trial in trials[:7]] == [0, 0, 0, 1, 2, 5, 5], "then the starting points"
    assert not any(trial.user_attrs.get("first_look") for trial in study_trials(tmp_path / "s"))


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("options", [{}, {"starting_points": "none"}, {"starting_points": "none", "cost_aware": False}])
def test_a_space_that_was_tried_whole_ends_the_search(tmp_path: Path, sampler: str, options: dict[str, Any]) -> None:
    plan = plan_of(tmp_path / "s", SMALL, 60, sampler=sampler, **options)
    assert drive(plan, slots=3, order=1, factory=QuickTrial) == "space"
    trials = read_search(tmp_path / "s").trials
    assert len(trials) == NUM_SMALL == len({str(sorted(trial.params.items())) for trial in trials})
    assert drive(plan, factory=QuickTrial) == "space", "a resume has nothing to do"
    assert len(read_search(tmp_path / "s").trials) == NUM_SMALL


def test_a_space_that_was_tried_whole_by_all_the_trials_has_finished(tmp_path: Path) -> None:
    assert drive(plan_of(tmp_path / "s", SMALL, NUM_SMALL), factory=QuickTrial) == "finished"


@pytest.mark.parametrize("kind", ["error", "memory"])
def test_a_configuration_that_failed_is_not_tried_again(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "s"
    behave(root, {str(number): {"kind": kind, "epoch": 1} for number in (0, 3, 5)})
    assert drive(plan_of(root, SMALL, 60, max_failed_trials=9), factory=StubTrial) == "space"
    trials = read_search(root).trials
    assert len(trials) == NUM_SMALL
    assert sum(t.state in (TrialState.FAILED, TrialState.INFEASIBLE) for t in trials) == 3


def test_seeds_alone_train_a_configuration_again(tmp_path: Path) -> None:
    entries = ({"head_lr": 1e-3}, {"head_lr": 1e-2})
    plan = plan_of(tmp_path / "s", SMALL, 4, sampler="fixed", start_with=entries, seeds=2, scheduler=None)
    assert drive(plan, factory=QuickTrial) == "finished"
    rates = [trial.config.head_lr for trial in read_search(tmp_path / "s").trials]
    assert rates == [1e-3, 1e-2, 1e-3, 1e-2]


def test_a_range_without_steps_always_has_another_point() -> None:
    import random

    class All:
        def __contains__(self, config: object) -> bool:
            return True

    assert untried_point(SMALL, All(), random.Random(0)) is None
    seen: list[Any] = []
    for _ in range(40):
        point = untried_point(space(), seen, random.Random(len(seen)))
        assert point is not None
        seen.append(space().to_config(point))
    assert len(set(seen)) == 40


def test_the_default_is_not_cut_beside_better_backbones(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", space(**WIDE), 3, scheduler=AshaSpec(grace_period=1, reduction_factor=2))
    drive(plan, slots=3, order=4, factory=Leaning)
    assert [trial.epochs_run for trial in read_search(tmp_path / "s").trials] == [4, 4, 4]
