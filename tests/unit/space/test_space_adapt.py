"""``adapt`` and ``lora_rank`` in a space: where they exist, with which values, and what no trial could have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_space_build import problems, read
from test_space_points import FakeTrial

from tlsearch.core.types import TrialConfig
from tlsearch.space import Space
from tlsearch.space.adapt_methods import ADAPT_METHODS
from tlsearch.space.conditions import dimension_of

VIT, CNN, WITHOUT_NORM = "vit_b_16", "resnet18", "vgg11"
ALL = ["none", "lora", "ssf", "bitfit", "norm"]
MIXED: dict[str, Any] = {
    "backbone": [VIT, CNN, WITHOUT_NORM],
    "unfreeze_depth": {"int": [0, 2]},
    "adapt": ALL,
    "lora_rank": [4, 16],
}


def test_each_backbone_has_the_methods_that_it_can_take(tmp_path: Path) -> None:
    space, seen, found = read(tmp_path, MIXED), dict[str, Any](), dict[str, set[str]]()
    for seed in range(300):
        trial = FakeTrial(seed, seen)
        config = space.to_config(space.suggest(trial))
        assert space.to_config(trial.params) == config and space.values_of(config) == trial.params
        if config.unfreeze_depth == 0:
            assert config.adapt == "none" and not any(dimension_of(name) == "adapt" for name in trial.params)
        else:
            found.setdefault(config.backbone, set()).add(config.adapt)
        assert (config.lora_rank is not None) == ("lora_rank" in trial.params) == (config.adapt == "lora")
    assert found == {VIT: set(ALL), CNN: {"none", "bitfit", "norm"}, WITHOUT_NORM: {"none", "bitfit"}}
    names = {name: tuple(values) for name, values in seen.items() if dimension_of(name) == "adapt"}
    assert names == {
        "adapt": tuple(ALL),
        "adapt_none_bitfit_norm": ("none", "bitfit", "norm"),
        "adapt_none_bitfit": ("none", "bitfit"),
    }


@pytest.mark.parametrize("value", ["lora", ["lora", "ssf"]])
def test_a_backbone_that_can_take_no_value_has_none(tmp_path: Path, value: Any) -> None:
    space = read(tmp_path, {"backbone": [VIT, CNN], "unfreeze_depth": 1, "adapt": value})
    config = space.to_config(space.complete({"backbone": CNN}))
    assert (config.adapt, config.lora_rank) == ("none", None)
    config = space.to_config(space.complete({"backbone": VIT}))
    assert (config.adapt, config.lora_rank) == ("lora", 8)
    deeper = read(tmp_path, {"backbone": VIT, "unfreeze_depth": [0, 1], "adapt": value})
    config = deeper.to_config(deeper.complete({"unfreeze_depth": 0}))
    assert (config.adapt, config.lora_rank) == ("none", None)


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({"adapt": "lora"}, "adapt", "unfreeze_depth is 0"),
        ({"backbone": VIT, "unfreeze_depth": 0, "adapt": ["none", "ssf"]}, "adapt", "unfreeze_depth is 0"),
        (
            {"backbone": CNN, "unfreeze_depth": 2, "adapt": "lora"},
            "adapt",
            "it takes a transformer without batch norm as the backbone (line",
        ),
        (
            {"backbone": CNN, "unfreeze_depth": [0, 1], "adapt": ["none", "ssf"]},
            "adapt[1]",
            "change backbone or leave ssf out",
        ),
        (
            {"backbone": ["alexnet", WITHOUT_NORM], "unfreeze_depth": 2, "adapt": ["bitfit", "norm"]},
            "adapt[1]",
            "it takes a backbone with normalisation layers (line",
        ),
        ({"backbone": VIT, "unfreeze_depth": 1, "lora_rank": 4}, "lora_rank", "adapt is none"),
        ({"backbone": VIT, "unfreeze_depth": 1, "adapt": ["ssf", "norm"], "lora_rank": 4}, "lora_rank", "rank of lora"),
    ],
)
def test_what_no_trial_can_use_is_one_error(tmp_path: Path, space: dict[str, Any], path: str, words: str) -> None:
    (found,) = problems(tmp_path, space)
    assert found.dotted == f"space.{path}" and words in found.message
    assert found.message.startswith("no trial of this space can ")


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({"adapt": "adapter"}, "adapt", "adapt takes none, lora, ssf, bitfit or norm"),
        ({"backbone": VIT, "unfreeze_depth": 1, "adapt": "lora", "lora_rank": 0}, "lora_rank", "from 1 to 1024"),
        ({"peft": "lora"}, "peft", "adapt"),
    ],
)
def test_wrong_values_are_listed(tmp_path: Path, space: dict[str, Any], path: str, words: str) -> None:
    (found,) = problems(tmp_path, space)
    assert found.dotted == f"space.{path}" and words in found.message


def test_what_some_trial_can_use_is_right(tmp_path: Path) -> None:
    read(tmp_path, MIXED)
    read(tmp_path, {"backbone": [CNN, VIT], "unfreeze_depth": 1, "adapt": "lora", "lora_rank": {"int": [2, 32]}})
    head_lr = {"when": {"adapt": ["lora", "ssf"]}, "log": [1e-3, 1e-1]}
    read(tmp_path, {"backbone": VIT, "unfreeze_depth": 1, "adapt": ALL, "head_lr": head_lr})


def test_entries_are_judged(tmp_path: Path) -> None:
    space = read(tmp_path, MIXED)
    for entry, words in (
        ({"backbone": CNN, "unfreeze_depth": 1, "adapt": "lora"}, "outside the space at backbone resnet18"),
        ({"unfreeze_depth": 0, "adapt": "lora"}, "no part of the backbone trains"),
        ({"unfreeze_depth": 1, "adapt": "ssf", "lora_rank": 4}, "lora_rank has no effect where adapt is ssf"),
    ):
        with pytest.raises(ValueError, match=words):
            space.complete(entry)


def test_trials_from_before_adapt_are_inside_a_space_that_has_it(tmp_path: Path) -> None:
    space = read(tmp_path, MIXED)
    tree = json.loads(space.to_json())
    tree["dimensions"] = [one for one in tree["dimensions"] if one["name"] not in ("adapt", "lora_rank")]
    earlier = Space.from_json(json.dumps(tree))
    for depth in (0, 2):
        config = earlier.to_config(earlier.complete({"unfreeze_depth": depth}))
        assert config.adapt == "none"
        assert space.to_config(space.values_of(config)) == config


def test_names_of_fewer_values_are_those_of_their_dimension() -> None:
    assert dimension_of("adapt_none_norm") == "adapt" and dimension_of("bn_policy_head_only") == "bn_policy"
    assert dimension_of("head_lr") == "head_lr" and dimension_of("lora_rank") == "lora_rank"


def test_every_method_but_none_says_what_it_needs() -> None:
    assert list(ADAPT_METHODS) == ALL
    assert [name for name, one in ADAPT_METHODS.items() if one.has_rank] == ["lora"]
    config = TrialConfig(backbone=VIT, unfreeze_depth=2, backbone_lr=1e-4, adapt="lora", lora_rank=8)
    assert config.short.endswith(" lora 8") and replace(config, adapt="ssf", lora_rank=None).short.endswith(" ssf")
