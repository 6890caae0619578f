"""Points of a space: proposed, completed, turned into trials; nothing is spent on what has no effect."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tlsearch.core.types import TrialConfig
from tlsearch.space import Space, backbone_facts, load

TEXT = """
name: a
data: {source: digits}
space:
  backbone: [resnet18, vit_b_16, timm/tf_efficientnet_lite0, resnet50@IMAGENET1K_V1]
  unfreeze_depth: {int: [0, 5]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {log: [1.0e-6, 1.0e-3]}
  bn_policy: [frozen, train]
  augmentation: light
  weight_decay: {when: {unfreeze_depth: {ge: 2}, backbone: [resnet18, vit_b_16]}, float: [0.0, 0.1], step: 0.05}
  batch_size: [16, 64]
"""

FAR = """
name: a
data: {source: digits}
space:
  backbone: [vit_b_16, resnet18]
  unfreeze_depth: {int: [1, 5], step: 2}
  head_lr: {log: [0.01, 0.1]}
  backbone_lr: [0.5, 0.0002]
  batch_size: {int: [40, 64], step: 8}
  weight_decay: {float: [0.0, 0.3], step: 0.1}
  augmentation: [light, none]
"""


class FakeTrial:
    """Draws at random and remembers under which distribution; a name must keep one distribution."""

    def __init__(self, seed: int, seen: dict[str, Any] | None = None) -> None:
        self.rng = random.Random(seed)
        self.params: dict[str, Any] = {}
        self.seen = {} if seen is None else seen

    def _note(self, name: str, distribution: Any, value: Any) -> Any:
        assert name not in self.params, f"{name} is asked for twice"
        assert self.seen.setdefault(name, distribution) == distribution, f"the values of {name} change"
        self.params[name] = value
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        assert low < high
        return int(self._note(name, (low, high, step), self.rng.randrange(low, high + 1, step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        assert low < high and not (log and step)
        value = self.rng.uniform(low, high)
        value = value if step is None else low + step * round((value - low) / step)
        return float(self._note(name, (low, high, step, log), value))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        assert len(choices) > 1
        return self._note(name, tuple(choices), self.rng.choice(list(choices)))


def space_of(tmp_path: Path, text: str = TEXT) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return load(path)[1]


def check_point(space: Space, values: dict[str, Any]) -> TrialConfig:
    config, params = space.to_config(values), space.to_params(values)
    facts = backbone_facts(config.backbone)
    assert facts is not None
    assert (config.backbone_lr is None) == ("backbone_lr" not in params) == (config.unfreeze_depth == 0)
    assert (config.bn_policy is None) == ("bn_policy" not in params) == (not facts.has_batch_norm)
    if config.unfreeze_depth == 0:
        assert config.bn_policy != "train"
    conditional = config.unfreeze_depth >= 2 and config.backbone in ("resnet18", "vit_b_16")
    assert ("weight_decay" in params) == conditional
    if not conditional:
        assert config.weight_decay == 1e-4
    assert all(getattr(config, name) == value for name, value in params.items())
    assert params["augmentation"] == "light"
    return config


def test_a_suggested_point_has_only_what_has_an_effect(tmp_path: Path) -> None:
    space, seen = space_of(tmp_path), {}
    configs = set()
    for seed in range(400):
        trial = FakeTrial(seed, seen)
        values = space.suggest(trial)
        assert trial.params.items() <= values.items()
        config = check_point(space, values)
        assert space.to_config(trial.params) == config, "what was proposed is enough to know the trial"
        assert ("backbone_lr" in trial.params) == (config.unfreeze_depth > 0)
        configs.add((config.backbone, config.unfreeze_depth, config.bn_policy))
    assert len(configs) == 4 + 3 * 5 * 2 + 5, "every combination that exists, and no other"
    assert "augmentation" not in seen, "one value is nothing to propose"
    assert "bn_policy_head_only" not in seen, "frozen is all there is at depth 0"


def test_optuna_takes_the_points(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = space_of(tmp_path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = space.starting_points([{"unfreeze_depth": 3, "weight_decay": 0.05}, {"backbone": "vit_b_16"}])
    for point in points:
        study.enqueue_trial(point)
    for number in range(60):
        trial = study.ask()
        values = space.suggest(trial)
        assert space.to_config(trial.params) == check_point(space, values)
        if number < len(points):
            assert trial.params == points[number]
        study.tell(trial, 0.0)


SOLVED = """
name: a
data: {source: digits}
space:
  backbone: resnet18
  unfreeze_depth: {int: [0, 2]}
  head: [linear, ridge, cosine]
  head_penalty: {log: [1.0e-3, 10.0]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  head_dropout: [0.1, 0.5]
  augmentation: [none, light]
  weight_decay: {when: {augmentation: light}, log: [1.0e-5, 1.0e-2]}
"""


def test_a_solved_head_is_asked_for_nothing_that_trains(tmp_path: Path) -> None:
    space, seen = space_of(tmp_path, SOLVED), dict[str, Any]()
    heads = set()
    for seed in range(200):
        trial = FakeTrial(seed, seen)
        config = space.to_config(space.suggest(trial))
        heads.add((config.unfreeze_depth, config.head))
        assert ("head" in trial.params) == (config.unfreeze_depth == 0)
        assert ("head_penalty" in trial.params) == (config.head == "ridge")
        trains = {"head_lr", "head_dropout", "augmentation"}
        assert trains & trial.params.keys() == (set() if config.solved else trains)
        if config.solved:
            assert (config.head_lr, config.head_dropout, config.augmentation) == (1e-3, None, "none")
            assert space.to_params(trial.params).keys() <= {"backbone", "unfreeze_depth", "head", "head_penalty"} | {
                "bn_policy"
            }
    assert heads == {(0, "linear"), (0, "ridge"), (0, "cosine"), (1, "linear"), (2, "linear")}


def test_the_default_is_moved_to_the_nearest_point(tmp_path: Path) -> None:
    assert space_of(tmp_path).default_point() == {
        "backbone": "resnet18",
        "unfreeze_depth": 0,
        "head_lr": 1e-3,
        "batch_size": 16,
    }
    moved = space_of(tmp_path, FAR)
    assert moved.default_point() == {
        "backbone": "vit_b_16",
        "unfreeze_depth": 1,
        "head_lr": 0.01,
        "backbone_lr": 0.0002,
        "batch_size": 40,
        "weight_decay": 0.0,
        "augmentation": "none",
    }


def test_starting_points_are_completed_and_end_with_the_default(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    entry = {"unfreeze_depth": 2, "bn_policy": "train", "head_lr": 0.1}
    points = space.starting_points([entry])
    assert points[0] == {
        "backbone": "resnet18",
        "unfreeze_depth": 2,
        "head_lr": 0.1,
        "backbone_lr": 1e-4,
        "bn_policy": "train",
        "weight_decay": 0.0,
        "batch_size": 16,
    }
    assert points[1:] == [space.default_point()]
    assert len(space.starting_points([{}, {"head_lr": 1e-3}])) == 2, "the default stands there already"


def test_a_point_outside_the_space_is_refused(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    for entry in ({"backbone": "resnet34"}, {"backbone_lr": 1e-4}, {"nothing": 1}, {"batch_size": 32}):
        with pytest.raises(ValueError, match="space|effect|known"):
            space.complete(entry)
    with pytest.raises(ValueError, match="needs a value of unfreeze_depth"):
        space.to_config({"backbone": "resnet18"})
    with pytest.raises(ValueError, match="outside the space"):
        space.to_config({**space.default_point(), "unfreeze_depth": 6})


def conditional_space(tmp_path: Path) -> Space:
    return space_of(
        tmp_path,
        """
name: a
data: {source: digits}
space:
  backbone: [resnet18, vit_b_16]
  unfreeze_depth: {int: [0, 3]}
  bn_policy: [frozen, train, adapt, stats]
  unfreeze_schedule: [at_once, progressive]
  layer_decay: {float: [0.5, 1.0]}
""",
    )


def test_no_trial_is_spent_on_what_has_no_effect_at_its_depth(tmp_path: Path) -> None:
    space, seen = conditional_space(tmp_path), {}
    found = set()
    for seed in range(600):
        trial = FakeTrial(seed, seen)
        config = space.to_config(space.suggest(trial))
        depth = config.unfreeze_depth
        assert (config.unfreeze_schedule is None) == (depth == 0)
        assert ("unfreeze_schedule" in trial.params) == (depth >= 2)
        assert depth >= 2 or config.unfreeze_schedule != "progressive"
        assert (config.layer_decay is None) == ("layer_decay" not in trial.params) == (depth < 2)
        found.add((config.backbone, depth, config.bn_policy, config.unfreeze_schedule))
    assert len(found) == (3 + 4 + 4 * 2 * 2) + (1 + 1 + 2 * 2)
    assert seen["bn_policy"] == ("frozen", "train", "adapt", "stats")
    assert seen["bn_policy_head_only"] == ("frozen", "adapt", "stats")


def test_values_without_effect_are_refused_at_their_depth(tmp_path: Path) -> None:
    space = conditional_space(tmp_path)
    for entry, words in (
        ({"unfreeze_depth": 1, "unfreeze_schedule": "progressive"}, "outside the space at unfreeze_depth 1"),
        ({"unfreeze_depth": 0, "unfreeze_schedule": "at_once"}, "no part of the backbone"),
        ({"unfreeze_depth": 1, "layer_decay": 0.6}, "it tells stages apart"),
        ({"unfreeze_depth": 0, "bn_policy": "train"}, "outside the space at unfreeze_depth 0"),
    ):
        with pytest.raises(ValueError, match=words):
            space.complete(entry)
    point = space.complete({"unfreeze_depth": 2, "unfreeze_schedule": "progressive"})
    assert space.to_params(point)["unfreeze_schedule"] == "progressive"
    values = {"backbone": "resnet18", "unfreeze_depth": 0, "bn_policy_head_only": "adapt"}
    params = space.to_params(values)
    assert params["bn_policy"] == "adapt" and "unfreeze_schedule" not in params


def test_a_space_survives_json(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    again = Space.from_json(space.to_json())
    assert again == space
    assert again.names() == space.names()
    assert again.backbones() == ("resnet18", "vit_b_16", "timm/tf_efficientnet_lite0", "resnet50@IMAGENET1K_V1")


@pytest.mark.parametrize("seed", range(40))
def test_a_trial_has_its_place_in_the_space(tmp_path: Path, seed: int) -> None:
    space = space_of(tmp_path)
    trial = FakeTrial(seed)
    config = space.to_config(space.suggest(trial))
    assert space.values_of(config) == trial.params
    assert space.to_config(space.values_of(config)) == config


def test_a_space_of_a_version_with_fewer_dimensions_is_read(tmp_path: Path) -> None:
    space = space_of(tmp_path)
    tree = json.loads(space.to_json())
    later = {"image_size", "features", "head", "head_penalty", "adapt", "lora_rank"}
    tree["dimensions"] = [one for one in tree["dimensions"] if one["name"] not in later]
    earlier = Space.from_json(json.dumps(tree))
    assert earlier.to_config(earlier.default_point()) == space.to_config(space.default_point())
    assert earlier.complete({"unfreeze_depth": 0}) == space.complete({"unfreeze_depth": 0})


def test_a_trial_of_another_space_has_none(tmp_path: Path) -> None:
    config = TrialConfig(
        backbone="vit_b_16", unfreeze_depth=1, head_lr=0.05, backbone_lr=0.5, unfreeze_schedule="at_once"
    )
    config = replace(config, batch_size=40, weight_decay=0.1, head_init="probe")
    far = space_of(tmp_path, FAR)
    far.values_of(config)
    changes: list[dict[str, Any]] = [{"batch_size": 41}, {"head_lr": 0.2}, {"backbone_lr": None}, {"mixup": 0.2}]
    for change in changes:
        with pytest.raises(ValueError, match=f"{next(iter(change))} .* is outside the space"):
            far.values_of(replace(config, **change))
