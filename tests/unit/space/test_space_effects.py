"""Settings that no trial could use are errors, with the place and what decides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_space_build import problems, read, write

from tlsearch.core.errors import SpaceError
from tlsearch.space import load

REPOSITORY = Path(__file__).parents[3]
BN = "resnet18"
NO_BN = "vit_b_16"


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({"backbone_lr": {"log": [1e-5, 1e-3]}}, "backbone_lr", "unfreeze_depth is 0"),
        ({"backbone_lr": {"ratio_of": "head_lr", "log": [0.01, 1]}}, "backbone_lr", "unfreeze_depth is 0"),
        ({"backbone_lr": 1e-4}, "backbone_lr", "(by default)"),
        ({"unfreeze_depth": 0, "backbone_lr": 1e-4}, "backbone_lr", "(line 8)"),
        ({"unfreeze_depth": 0, "layer_decay": [0.5, 1.0]}, "layer_decay", "unfreeze_depth is 0"),
        ({"unfreeze_depth": [0, 1], "layer_decay": 0.5}, "layer_decay", "unfreeze_depth is 1"),
        ({"unfreeze_depth": 0, "unfreeze_schedule": "at_once"}, "unfreeze_schedule", "unfreeze_depth is 0"),
        ({"unfreeze_depth": 1, "unfreeze_schedule": "progressive"}, "unfreeze_schedule", "unfreeze_depth 2 or more"),
        (
            {"unfreeze_depth": {"int": [0, 1]}, "unfreeze_schedule": ["at_once", "progressive"]},
            "unfreeze_schedule[1]",
            "unfreeze_depth 2 or more (line",
        ),
        ({"unfreeze_depth": 0, "bn_policy": "train"}, "bn_policy", "unfreeze_depth 1 or more (line 8)"),
        ({"bn_policy": ["frozen", "train", "adapt"]}, "bn_policy[1]", "unfreeze_depth 1 or more (by default)"),
        ({"bn_policy": {"when": {"backbone": BN}, "choice": ["train", "adapt"]}}, "bn_policy.choice[0]", "1 or more"),
        ({"unfreeze_depth": 2, "head": "ridge"}, "head", "unfreeze_depth 0 (line 8)"),
        ({"head": ["ridge", "cosine"], "head_lr": {"log": [1e-4, 1e-1]}}, "head_lr", "head is "),
        ({"head": "ridge", "augmentation": "light"}, "augmentation", "head is ridge"),
        ({"head_penalty": {"log": [1e-3, 10]}}, "head_penalty", "head is linear: ridge and logistic"),
        ({"head": "cosine", "head_penalty": 0.1}, "head_penalty", "head is cosine"),
        ({"backbone": [BN, "swin_t"], "features": "cls"}, "features", "reads no class token"),
        ({"backbone": NO_BN, "bn_policy": "frozen"}, "bn_policy", "no batch norm (line"),
        ({"backbone": [NO_BN, "vit_b_32"], "bn_policy": ["frozen", "stats"]}, "bn_policy", "no batch norm (line"),
        (
            {"backbone": [BN, NO_BN], "bn_policy": {"when": {"backbone": NO_BN}, "choice": ["frozen", "adapt"]}},
            "bn_policy",
            "backbone",
        ),
        (
            {"unfreeze_depth": [0, 2], "backbone_lr": {"when": {"unfreeze_depth": 0}, "log": [1e-6, 1e-3]}},
            "backbone_lr",
            "change unfreeze_depth, the condition (line 13) or leave backbone_lr out",
        ),
        (  # each condition can hold, never both
            {
                "unfreeze_depth": {"when": {"backbone": BN}, "int": [1, 5]},
                "weight_decay": {"when": {"backbone": NO_BN, "unfreeze_depth": {"ge": 1}}, "log": [1e-5, 1e-2]},
            },
            "weight_decay",
            "exists only where",
        ),
        (
            {
                "batch_size": {"when": {"unfreeze_depth": {"ge": 2}}, "choice": [16, 64]},
                "unfreeze_depth": {"int": [0, 5]},
                "grad_clip": {"when": {"batch_size": 64, "unfreeze_depth": {"le": 1}}, "log": [0.1, 10]},
            },
            "grad_clip",
            "exists only where",
        ),
    ],
)
def test_what_no_trial_can_use_is_one_error(tmp_path: Path, space: dict[str, Any], path: str, words: str) -> None:
    (found,) = problems(tmp_path, space)
    assert found.dotted == f"space.{path}" and found.line > 0
    assert words in found.message
    assert found.message.startswith("no trial of this space can ")


@pytest.mark.parametrize(
    "space",
    [
        {"unfreeze_depth": {"int": [0, 5]}, "backbone_lr": 1e-4, "bn_policy": "train", "layer_decay": [0.5, 1.0]},
        {"unfreeze_depth": [0, 2], "unfreeze_schedule": "progressive", "bn_policy": ["frozen", "train", "stats"]},
        {"unfreeze_depth": 0, "bn_policy": ["frozen", "adapt", "stats"]},
        {"unfreeze_depth": 1, "unfreeze_schedule": "at_once"},
        {"head": "ridge", "head_penalty": {"log": [1e-3, 10]}, "backbone": [BN, NO_BN]},
        {"head": ["linear", "ridge"], "head_penalty": 0.1, "head_lr": {"log": [1e-4, 1e-1]}, "augmentation": "light"},
        {"unfreeze_depth": {"int": [0, 2]}, "head": "logistic", "head_lr": {"log": [1e-4, 1e-1]}},
        {"backbone": [NO_BN, BN], "bn_policy": ["frozen", "adapt"]},
        {"unfreeze_depth": {"when": {"backbone": NO_BN}, "int": [1, 3]}, "backbone_lr": {"log": [1e-5, 1e-3]}},
        {"weight_decay": {"when": {"head_lr": {"ge": 1e-2}}, "log": [1e-5, 1e-2]}, "head_lr": {"log": [1e-4, 1e-1]}},
        {  # where the condition on augmentation does not hold, it has its default
            "augmentation": {"when": {"unfreeze_depth": {"ge": 2}}, "choice": ["light", "strong"]},
            "unfreeze_depth": {"int": [0, 5]},
            "weight_decay": {"when": {"augmentation": "none"}, "log": [1e-5, 1e-2]},
        },
    ],
)
def test_what_some_trial_can_use_is_right(tmp_path: Path, space: dict[str, Any]) -> None:
    read(tmp_path, space)


def test_several_are_all_listed(tmp_path: Path) -> None:
    space = {"unfreeze_depth": 0, "backbone_lr": 1e-4, "bn_policy": "train", "layer_decay": 0.5}
    assert [one.dotted for one in problems(tmp_path, space)] == [
        "space.backbone_lr",
        "space.bn_policy",
        "space.layer_decay",
    ]


def test_an_override_that_decides_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, {"unfreeze_depth": {"int": [0, 5]}, "backbone_lr": {"log": [1e-5, 1e-3]}})
    with pytest.raises(SpaceError) as caught:
        load(path, overrides=["space.unfreeze_depth=0"])
    (found,) = caught.value.faults
    assert found.dotted == "space.backbone_lr" and "(--set space.unfreeze_depth=0)" in found.message
    with pytest.raises(SpaceError) as caught:
        load(path, overrides=["space.unfreeze_depth=0", "space.backbone_lr=0.1"])
    assert "(given by --set space.backbone_lr=0.1)" in caught.value.faults[0].message


@pytest.mark.parametrize(
    ("search", "path", "words"),
    [
        ({"max_epochs": 6, "patience": 5}, "patience", "at most 4"),
        ({"max_epochs": 2, "patience": 1}, "patience", "leave it out"),
        ({"max_epochs": 3, "scheduler": {"asha": {"grace_period": 3}}}, "scheduler.asha.grace_period", "no rung"),
        ({"max_epochs": 9, "scheduler": {"asha": {"brackets": 4}}}, "scheduler.asha.brackets", "at most 3"),
        ({"on_budget": "finish"}, "on_budget", "without a time_budget"),
        ({"seeds": 2}, "seeds", "goes with fixed"),
        ({"sampler": "random", "starting_points": "none"}, "starting_points", "goes with tpe"),
        ({"sampler": "fixed", "start_with": [{}], "cost_aware": False, "trials": 1}, "cost_aware", "goes with tpe"),
        ({"sampler": "fixed", "start_with": [{}], "stop": "auto", "trials": 1}, "stop", "goes with tpe or random"),
        ({"objectives": ["val_accuracy", "latency_ms"], "stop": "auto"}, "stop", "has a front"),
        ({"cost_aware": False}, "cost_aware", "starting_points is auto"),
        ({"start_with": [{}, {"unfreeze_depth": 0}]}, "start_with[1]", "the same trial as entry 0"),
        ({"start_with": [{"head_lr": 1}, {}, {"head_lr": 1.0}]}, "start_with[2]", "the same trial as entry 0 (line"),
        (
            {"sampler": "fixed", "start_with": [{}, {}], "trials": 2},
            "start_with[1]",
            "search.seeds trains each entry several times",
        ),
        ({"probe_first": True}, "probe_first", "every search takes a first look at each backbone"),
        ({"expected_gain": "auto"}, "expected_gain", "TPE proposes"),
        ({"portfolio": False}, "portfolio", "called starting_points now"),
    ],
)
def test_settings_of_the_search_without_effect(tmp_path: Path, search: dict[str, Any], path: str, words: str) -> None:
    (found,) = problems(tmp_path, {"head_lr": {"log": [1e-4, 1]}}, search=search)
    assert found.dotted == f"search.{path}" and words in found.message


@pytest.mark.parametrize(
    "search",
    [
        {"max_epochs": 6, "patience": 4},
        {"max_epochs": 1},
        {"max_epochs": 9, "scheduler": {"asha": {"brackets": 3}}},
        {"on_budget": "finish", "time_budget": "1h"},
        {"starting_points": "none", "cost_aware": False},
        {"sampler": "fixed", "start_with": [{}], "seeds": 3, "trials": 3},
        {"start_with": [{}, {"unfreeze_depth": 0, "head_lr": 0.5}]},
    ],
)
def test_settings_of_the_search_with_effect(tmp_path: Path, search: dict[str, Any]) -> None:
    read(tmp_path, {"head_lr": {"log": [1e-4, 1]}}, search=search)


def test_fewer_epochs_on_the_command_line_are_a_short_try(tmp_path: Path) -> None:
    path = write(tmp_path, {}, search={"max_epochs": 20, "patience": 5, "scheduler": {"asha": {"brackets": 3}}})
    load(path, overrides=["search.max_epochs=2"])


def test_cached_features_that_are_not_kept(tmp_path: Path) -> None:
    space = {"augmentation": ["none", "light"]}
    cache = {"features_gb": 0, "views": 2, "feature_precision": "half"}
    found = problems(tmp_path, space, cache=cache)
    assert sorted(one.dotted for one in found) == ["cache.feature_precision", "cache.views"]
    read(tmp_path, space, cache={**cache, "features_gb": 1})


def test_a_search_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    """Its own file may hold what is an error today, and keys that are gone."""
    search = {"on_budget": "finish", "start_with": [{}, {}], "patience": 40}
    search |= {"probe_first": True, "portfolio": False, "expected_gain": "auto"}
    path = write(tmp_path, {"unfreeze_depth": 0, "backbone_lr": 1e-4, "bn_policy": ["frozen", "train"]}, search=search)
    assert len(problems(tmp_path, yaml.safe_load(path.read_text())["space"], search=search)) == 8
    file, space = load(path, stored=True)
    assert (file.search.on_budget, file.search.patience, len(file.search.start_with)) == ("finish", 40, 2)
    assert file.search.starting_points == "none"
    assert space.depths() == (0,)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "search_spaces").glob("*.yaml")), ids=lambda path: path.name)
def test_the_spaces_that_come_with_the_project_lack_their_data_at_most(path: Path) -> None:
    try:
        load(path)
    except SpaceError as error:
        assert not [one for one in error.faults if "does not exist" not in one.message]
