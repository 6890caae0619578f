"""A changed space: the trials of the old study go on under the new one, with their numbers and their reports."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from search_checks import check_agreement, study_trials
from search_doubles import drive, make_plan, read_log
from test_search_restarts import StopAfter

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import Scalar, TrialState
from tlsearch.search import SearchPlan, read_search
from tlsearch.search.controller.migrate import supersede
from tlsearch.search.study.lock import SearchLock
from tlsearch.search.study.storage import open_for_reading
from tlsearch.space import Choice, Dimension, Fixed, FloatRange, IntRange, Space

NARROW: Mapping[str, Any] = {
    "backbone": Fixed(value="resnet18"),
    "unfreeze_depth": IntRange(low=0, high=2),
    "head_lr": FloatRange(low=1e-3, high=1e-2, log=True),
    "backbone_lr": FloatRange(low=1e-5, high=1e-4, log=True),
    "weight_decay": Fixed(value=1e-4),
}
BOTH = {"backbone": Choice(values=("resnet18", "vit_b_16")), "unfreeze_depth": IntRange(low=0, high=5)}


def space(**changes: Any) -> Space:
    from tlsearch.space import PARAMETERS

    domains = {name: Fixed(value=one.default) for name, one in PARAMETERS.items()} | {**NARROW, **changes}
    return Space(dimensions={name: Dimension(name=name, domain=domain) for name, domain in domains.items()})


def plan_of(
    root: Path, of: Space, trials: int, *, start_with: Sequence[Mapping[str, Scalar]] = (), **search: Any
) -> SearchPlan:
    return replace(make_plan(root, trials=trials, start_with=tuple(start_with), **search), space=of)


def told(root: Path) -> list[tuple[Any, ...]]:
    return [
        (t.number, t.state, t.reason, t.config, t.seed, t.reports, t.best_value, t.best_epoch, t.error)
        for t in read_search(root).trials
    ]


@pytest.fixture(params=["journal", "database"])
def study_of(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return {} if request.param == "journal" else {"study": f"sqlite:///{tmp_path}/team.db"}


def test_a_wider_space_goes_on_with_all_trials(tmp_path: Path, study_of: dict[str, str]) -> None:
    root, old = tmp_path / "s", space()
    drive(plan_of(root, old, 8, **study_of))
    before = told(root)
    wider = space(**BOTH, weight_decay=FloatRange(low=1e-6, high=1e-2, log=True))
    plan = plan_of(root, wider, 14, start_with=[{"backbone": "vit_b_16"}], **study_of)
    carried = supersede(plan)
    assert carried.inside == tuple(range(8)) and carried.outside == () and carried.num_new_points == 1
    assert told(root) == before
    stored = study_trials(root)
    assert all(t.params["weight_decay"] == 1e-4 and t.params["backbone"] == "resnet18" for t in stored[:8])
    choices = {t.distributions["backbone"] for t in stored[:8]}
    assert choices == {optuna.distributions.CategoricalDistribution(["resnet18", "vit_b_16"])}
    assert drive(plan) == "finished"
    check_agreement(plan)
    after = read_search(root).trials
    assert told(root)[:8] == before and [t.number for t in after] == list(range(14))
    assert after[8].config.backbone == "vit_b_16"  # the new starting point comes first
    trained = {line["number"] for line in read_log(root) if line["what"] == "open"}
    assert trained == set(range(14)) and len([x for x in read_log(root) if x["what"] == "open"]) == 14


def test_running_trials_go_on_in_the_new_study(tmp_path: Path, study_of: dict[str, str]) -> None:
    root, stop = tmp_path / "s", threading.Event()
    entries = [{"unfreeze_depth": depth} for depth in (1, 2)]
    drive(
        plan_of(root, space(), 6, start_with=entries, scheduler=None, **study_of),
        observers=[StopAfter(stop, 2)],
        stop=stop,
    )
    (running,) = read_search(root).trials
    assert running.state is TrialState.RUNNING and running.epochs_run == 2
    wider = plan_of(root, space(**BOTH), 6, start_with=entries, scheduler=None, **study_of)
    assert (
        supersede(wider).num_new_points == 3
    )  # depth 2 and the default, which were waiting, and a look at the new backbone
    assert drive(wider) == "finished"
    check_agreement(wider)
    trials = read_search(root).trials
    assert trials[0].reports[:2] == running.reports and trials[0].state is TrialState.COMPLETE
    epochs = [line["epoch"] for line in read_log(root) if line["number"] == 0 and line["what"] == "epoch"]
    assert epochs == [1, 2, 3, 4]
    assert [t.config.unfreeze_depth for t in trials[:3]] == [1, 2, 0] and len(trials) == 6


def test_trials_outside_the_new_space_stay_but_teach_nothing(tmp_path: Path, study_of: dict[str, str]) -> None:
    root = tmp_path / "s"
    drive(plan_of(root, space(**BOTH), 12, sampler="random", **study_of))
    before = told(root)
    plan = plan_of(root, space(), 16, **study_of)
    carried = supersede(plan)
    inside = [
        t.number for t in read_search(root).trials if t.config.backbone == "resnet18" and t.config.unfreeze_depth < 3
    ]
    assert carried.inside == tuple(inside) and 0 < len(inside) < 12
    assert set(carried.outside) == set(range(12)) - set(inside)
    assert [bool(t.params) for t in study_trials(root)[:12]] == [number in inside for number in range(12)]
    assert told(root) == before and [dict(t.params) for t in read_search(root).trials[:12]]
    assert drive(plan) == "finished"
    assert told(root)[:12] == before
    assert all(t.config.backbone == "resnet18" for t in read_search(root).trials[12:])


def test_twice_changed(tmp_path: Path, study_of: dict[str, str]) -> None:
    root = tmp_path / "s"
    drive(plan_of(root, space(), 3, **study_of))
    for trials, changes in ((5, BOTH), (7, {**BOTH, "head_lr": FloatRange(low=1e-4, high=1e-1, log=True)})):
        plan = plan_of(root, space(**changes), trials, **study_of)
        supersede(plan)
        drive(plan)
    assert [t.number for t in read_search(root).trials] == list(range(7))
    study = open_for_reading(SearchFolder(root=root))
    assert study is not None and study.attrs["succeeds"] == "s~2"


def test_half_a_successor_in_a_database_is_replaced(tmp_path: Path) -> None:
    root, url = tmp_path / "s", f"sqlite:///{tmp_path}/team.db"
    drive(plan_of(root, space(), 3, study=url))
    storage = optuna.storages.RDBStorage(url)
    study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "s~2")
    storage.set_study_user_attr(study_id, "succeeds", "s")
    storage.create_new_trial(study_id)
    assert len(read_search(root).trials) == 3
    supersede(plan_of(root, space(**BOTH), 3, study=url))
    assert len(read_search(root).trials) == 3
    assert [s.study_name for s in storage.get_all_studies()] == ["s", "s~2"]


def test_a_running_search_is_not_changed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "s", space(), 2)
    assert supersede(plan).inside == ()  # not begun: nothing to carry
    assert not plan.folder.journal.exists()
    drive(plan)
    lock = SearchLock(plan.folder.lock)
    with pytest.raises(StorageError, match="in use by"):
        supersede(plan)
    lock.release()


def test_a_search_of_any_name_is_superseded(tmp_path: Path) -> None:
    root = tmp_path / "night~run"
    drive(plan_of(root, space(), 2))
    supersede(plan_of(root, space(**BOTH), 2))
    study = open_for_reading(SearchFolder(root=root))
    assert study is not None and study.attrs["succeeds"] == "night~run" and len(study.trials()) >= 2
