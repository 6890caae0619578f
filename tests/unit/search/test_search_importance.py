"""Importances: planted ones are found, in conditional spaces and after early stopping."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from search_doubles import drive, make_plan

from tlsearch.core.types import Objective
from tlsearch.search import parameter_importance
from tlsearch.search.inspect.importance import MIN_TRIALS, importance_of

ACCURACY, LOSS = Objective.of("val_accuracy"), Objective.of("val_loss")

DEPTH = IntDistribution(0, 5)
RATE = FloatDistribution(1e-6, 1e-3, log=True)
HEAD = FloatDistribution(1e-4, 1e-1, log=True)
POLICY = CategoricalDistribution(["frozen", "train"])
POLICY_HEAD_ONLY = CategoricalDistribution(["frozen", "adapt"])


def _trial(params: dict[str, Any], curve: list[float], reason: str = "asha") -> FrozenTrial:
    every = {
        "unfreeze_depth": DEPTH,
        "backbone_lr": RATE,
        "head_lr": HEAD,
        "bn_policy": POLICY,
        "bn_policy_head_only": POLICY_HEAD_ONLY,
    }
    state = {"completed": OptunaState.COMPLETE, "error": OptunaState.FAIL}.get(reason, OptunaState.PRUNED)
    return optuna.trial.create_trial(
        state=state,
        value=curve[-1] if state is OptunaState.COMPLETE else None,
        params=params,
        distributions={name: every[name] for name in params},
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs={"reason": reason},
    )


def _sample(rng: random.Random) -> dict[str, Any]:
    params: dict[str, Any] = {"unfreeze_depth": rng.randint(0, 5), "head_lr": 10 ** rng.uniform(-4, -1)}
    if params["unfreeze_depth"] > 0:
        return params | {"backbone_lr": 10 ** rng.uniform(-6, -3), "bn_policy": rng.choice(["frozen", "train"])}
    return params | {"bn_policy_head_only": rng.choice(["frozen", "adapt"])}


def test_a_planted_conditional_parameter_is_the_most_important() -> None:
    rng = random.Random(0)
    trials = []
    for _ in range(200):
        params = _sample(rng)
        bonus = 0.3 * (1 + (math.log10(params["backbone_lr"]) + 3) / 3) if "backbone_lr" in params else 0.15
        trials.append(_trial(params, [0.5 + bonus + rng.gauss(0, 0.01)]))
    found = importance_of(trials, ACCURACY)
    assert next(iter(found.values)) == "backbone_lr"
    assert found.values["backbone_lr"] > 2 * found.values["head_lr"]
    assert sum(found.values.values()) == pytest.approx(1)
    assert (found.epoch, found.num_trials, found.num_top, found.reason) == (1, 200, 20, "")
    assert all(low <= found.values[name] <= high for name, (low, high) in found.spread.items())
    assert "bn_policy_head_only" not in found.values and "bn_policy" in found.values


def test_smaller_is_better_where_the_metric_is_a_loss() -> None:
    rng = random.Random(1)
    sampled = [_sample(rng) for _ in range(100)]
    better = [_trial(p, [0.5 + 0.05 * p["unfreeze_depth"] + rng.gauss(0, 0.01)]) for p in sampled]
    worse = [_trial(t.params, [-value for value in t.intermediate_values.values()]) for t in better]
    assert importance_of(better, ACCURACY).values == pytest.approx(importance_of(worse, LOSS).values)
    assert next(iter(importance_of(better, ACCURACY).values)) == "unfreeze_depth"


def test_all_trials_count_at_one_common_epoch_not_only_complete_ones() -> None:
    """Trials that went on would hide it: their later values rank them by luck of the rungs."""
    rng = random.Random(2)
    trials = []
    for number in range(60):
        params = _sample(rng)
        at_rung = 0.5 + 0.05 * params["unfreeze_depth"] + rng.gauss(0, 0.005)
        goes_on = number % 5 == 0
        curve = [at_rung - 0.1, at_rung, *([0.9, 0.95] if goes_on else [])]
        trials.append(_trial(params, curve, "completed" if goes_on else "asha"))
    trials.append(_trial(_sample(rng), [0.5], "budget"))  # had no chance to get there
    trials.append(_trial(_sample(rng), [0.9], "error"))
    found = importance_of(trials, ACCURACY)
    assert (found.epoch, found.num_trials) == (2, 60)
    assert next(iter(found.values)) == "unfreeze_depth"


def test_a_diverged_trial_marks_a_bad_place() -> None:
    rng = random.Random(3)
    trials = []
    for _ in range(120):
        params = _sample(rng)
        hot = params["head_lr"] > 1e-2
        curve = [0.9] if hot else [0.6 + rng.gauss(0, 0.01)]  # a fine value just before the end
        trials.append(_trial(params, curve, "diverged" if hot else "asha"))
    assert next(iter(importance_of(trials, ACCURACY).values)) == "head_lr"


def test_too_little_to_tell_is_said() -> None:
    rng = random.Random(4)
    few = [_trial(_sample(rng), [rng.random()]) for _ in range(MIN_TRIALS - 1)]
    assert not importance_of(few, ACCURACY).values and "at least 10" in importance_of(few, ACCURACY).reason
    equal = [_trial(_sample(rng), [0.5]) for _ in range(30)]
    assert importance_of(equal, ACCURACY).reason == "all trials have the same value"
    fixed = [_trial({}, [rng.random()]) for _ in range(30)]
    assert importance_of(fixed, ACCURACY).reason == "the search varied no parameter"
    assert importance_of([], ACCURACY).num_trials == 0


def test_a_search_is_read_from_its_folder(tmp_path: Path) -> None:
    assert parameter_importance(tmp_path).reason == "the search has not started"
    drive(make_plan(tmp_path / "s", trials=30, sampler="random"), slots=2)
    found = parameter_importance(tmp_path / "s")
    assert set(found.values) == {"backbone", "unfreeze_depth", "head_lr", "backbone_lr"}
    assert (found.epoch, found.num_trials) == (1, 30)
