"""Proposals follow from the seed and the trial's number, restart or not."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.study import StudyDirection
from optuna.trial import TrialState
from search_doubles import QuickTrial, TinySpace, drive, make_plan

from tlsearch.config.samplers import SAMPLERS
from tlsearch.search import read_search
from tlsearch.search.sampling.proposals import STARTING_POINTS
from tlsearch.search.sampling.tpe import NUM_GOOD, NUM_SEEN, make_sampler, seen
from tlsearch.search.seeds import derive_fraction, derive_seed


def proposals(root: Path, starts: tuple[int, ...], **search: Any) -> list[dict[str, Any]]:
    """The parameters of all trials of a search that was started once for each of these totals."""
    for trials in starts:
        assert drive(make_plan(root, max_epochs=3, trials=trials, **search)) == "finished"
    return [dict(trial.params) for trial in read_search(root).trials]


@pytest.mark.parametrize("sampler", [name for name, one in SAMPLERS.items() if not one.listed])
def test_a_restart_goes_on_with_the_same_proposals(tmp_path: Path, sampler: str) -> None:
    whole = proposals(tmp_path / "whole", (16,), sampler=sampler, seed=3)
    parts = proposals(tmp_path / "parts", (5, 9, 16), sampler=sampler, seed=3)
    assert whole == parts
    assert len({str(point) for point in whole}) == 16  # and none is repeated


def test_another_seed_proposes_otherwise(tmp_path: Path) -> None:
    first = proposals(tmp_path / "a", (12,), seed=3)
    second = proposals(tmp_path / "b", (12,), seed=4)
    assert first[0] == second[0] == TinySpace().default_point()
    chosen = 3 + len(STARTING_POINTS)  # the default, a first look, the starting points, one of them twice
    assert not [point for point in first[chosen:] if point in second]


def test_the_default_point_comes_first_and_start_with_before_it(tmp_path: Path) -> None:
    start = {"backbone": "mobilenet_v2", "unfreeze_depth": 2}
    points = proposals(tmp_path / "a", (3,), start_with=(start,))
    assert points[0] == TinySpace().complete(start)
    assert points[1] == TinySpace().default_point()


def test_a_fixed_search_is_exactly_its_list(tmp_path: Path) -> None:
    listed = tuple({"unfreeze_depth": depth} for depth in (3, 0, 3))
    points = proposals(tmp_path / "a", (1,), sampler="fixed", start_with=listed)
    assert points == [TinySpace().complete(entry) for entry in listed]


SPACE_FILE = """
name: conditions
data: {source: digits}
space:
  backbone: [resnet18, vit_b_16]
  unfreeze_depth: {int: [0, 5]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {log: [1.0e-6, 1.0e-3]}
  bn_policy: [frozen, train]
  augmentation: [none, light]
"""


def test_a_real_conditional_space_over_restarts(tmp_path: Path) -> None:
    from tlsearch.space import load

    (tmp_path / "space.yaml").write_text(SPACE_FILE)
    _, space = load(tmp_path / "space.yaml")
    for trials in (1, 12, 30):
        plan = replace(make_plan(tmp_path / "s", max_epochs=3, trials=trials), space=space)
        assert drive(plan, factory=QuickTrial) == "finished"
    trials = read_search(tmp_path / "s").trials
    assert len(trials) == 30 and {trial.config.backbone for trial in trials} == {"resnet18", "vit_b_16"}
    for trial in trials:
        deep = trial.config.unfreeze_depth > 0
        assert ("backbone_lr" in trial.params) == deep == (trial.config.backbone_lr is not None)
        assert (trial.params.get("bn_policy") == "train") <= (deep and trial.config.backbone == "resnet18")


def test_tpe_is_made_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_sampler("tpe", seed=0, number=0)


def test_an_unknown_name_makes_no_sampler() -> None:
    with pytest.raises(KeyError, match="grid"):
        make_sampler("grid", seed=0, number=0)


def study_of(num_trials: int, *, direction: str = "maximize") -> optuna.Study:
    """One trial in three pruned, one in seven of the others infeasible; values in no order."""
    study = optuna.create_study(direction=direction)
    domain = FloatDistribution(0, 1)
    for number in range(num_trials):
        value = number * 7919 % 1009 / 1009
        trial = study.ask({"x": domain})
        trial.report(value, 1)
        if number % 7 == 0:
            trial.set_constraint("params_millions", 1.0)
        pruned = number % 3 == 0
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
    return study


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_what_tpe_knows_is_bounded_and_its_good_group_is_that_of_all_trials(direction: str) -> None:
    study = study_of(NUM_SEEN + 150, direction=direction)
    running = study.ask().number
    everything = study.get_trials(deepcopy=False)
    known = seen(everything, study.direction)
    assert len(known) == NUM_SEEN + 1 and known[-1].number == running
    n_below = default_gamma(len(everything) - 1)
    assert n_below == default_gamma(NUM_SEEN) == NUM_GOOD
    good = [trial.number for trial in _split_trials(study, everything, n_below)[0]]
    assert [trial.number for trial in _split_trials(study, known, n_below)[0]] == good


def test_of_a_short_search_tpe_knows_all() -> None:
    trials = study_of(NUM_SEEN).get_trials(deepcopy=False)
    assert seen(trials, StudyDirection.MAXIMIZE) == trials


@pytest.mark.parametrize("num_ended", [0, NUM_SEEN, NUM_SEEN + 50])
def test_of_many_running_trials_tpe_knows_the_latest(num_ended: int) -> None:
    """Each counts as a bad one, with a kernel of its own: 1,000 nodes would make a proposal four times as dear."""
    study = study_of(num_ended)
    running = [study.ask().number for _ in range(NUM_SEEN + 80)]
    known = [trial.number for trial in seen(study.get_trials(deepcopy=False), study.direction)]
    assert [number for number in known if number in set(running)] == running[-NUM_SEEN:]
    assert len(known) == min(num_ended, NUM_SEEN) + NUM_SEEN and known == sorted(known)


def test_tpe_proposes_what_it_would_of_the_window_alone() -> None:
    study = study_of(NUM_SEEN + 50)
    window = optuna.create_study(direction="maximize")
    window.add_trials(seen(study.get_trials(deepcopy=False), study.direction))
    points = []
    for one in (study, window):
        one.sampler = make_sampler("tpe", seed=0, number=NUM_SEEN + 50)
        points.append(one.ask({"x": FloatDistribution(0, 1)}).params)
    assert points[0] == points[1]


def test_seeds_differ_by_purpose_and_number_and_never_change() -> None:
    assert derive_seed(0, "trial", 0) == 1192658259
    seeds = {derive_seed(seed, purpose, n) for seed in (0, 1) for purpose in ("trial", "sampler") for n in range(100)}
    assert len(seeds) == 400 and all(0 <= seed < 2**31 for seed in seeds)
    assert all(0 <= derive_fraction(0, "bracket", n) < 1 for n in range(100))
