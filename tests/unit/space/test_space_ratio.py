"""backbone_lr as a ratio of head_lr: what is proposed, what a trial gets, what is wrong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tlsearch.core.errors import SpaceError, SpaceProblem
from tlsearch.space import Space, load

RATIO = {"ratio_of": "head_lr", "log": [0.001, 1.0]}


class Draws:
    """Draws at random; remembers names."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.params: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        self.params[name] = self.rng.randrange(low, high + 1, step)
        return int(self.params[name])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.params[name] = self.rng.uniform(low, high)
        return float(self.params[name])

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.params[name] = self.rng.choice(list(choices))
        return self.params[name]


def write(folder: Path, backbone_lr: Any, **more: Any) -> Path:
    space = {
        "backbone": ["resnet18", "vit_b_16"],
        "unfreeze_depth": {"int": [0, 3]},
        "head_lr": {"log": [1e-4, 1e-1]},
        "backbone_lr": backbone_lr,
    }
    sections = {name: more.pop(name) for name in ("search",) if name in more}
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "data": {"source": "digits"}, **sections, "space": space | more}))
    return path


def read(folder: Path, backbone_lr: Any = RATIO, **more: Any) -> Space:
    return load(write(folder, backbone_lr, **more))[1]


def problems(folder: Path, backbone_lr: Any, **more: Any) -> tuple[SpaceProblem, ...]:
    with pytest.raises(SpaceError) as caught:
        load(write(folder, backbone_lr, **more))
    return caught.value.faults


def test_the_ratio_is_proposed_and_the_rate_is_shown(tmp_path: Path) -> None:
    space = read(tmp_path)
    for seed in range(40):
        trial = Draws(seed)
        config = space.to_config(space.suggest(trial))
        params = space.to_params(trial.params)
        assert "backbone_lr" not in trial.params and "backbone_lr_ratio" not in params
        if config.unfreeze_depth == 0:
            assert config.backbone_lr is None and "backbone_lr_ratio" not in trial.params
        else:
            product = trial.params["backbone_lr_ratio"] * trial.params["head_lr"]
            assert config.backbone_lr == pytest.approx(product, rel=1e-11)
            assert params["backbone_lr"] == config.backbone_lr
        # From the rate back to the ratio and again to the rate, to the bit: a trial can be told and tried again.
        assert space.to_config(space.values_of(config)) == config
        assert space.to_config(space.complete(params)) == config
    assert Space.from_json(space.to_json()) == space


@pytest.mark.parametrize("form", [{"choice": [0.1, 0.5]}, {"float": [0.1, 1.0]}, {"float": [0.5, 0.5]}])
def test_every_form_may_be_a_ratio(tmp_path: Path, form: dict[str, Any]) -> None:
    space = read(tmp_path, {"ratio_of": "head_lr", **form})
    values = {"backbone": "vit_b_16", "unfreeze_depth": 2, "head_lr": 0.01, "backbone_lr_ratio": 0.5}
    assert space.to_config(values).backbone_lr == pytest.approx(0.005)


def test_starting_points_give_the_rate_itself(tmp_path: Path) -> None:
    space = read(tmp_path)
    for rate, ratio in ((1e-4, 0.1), (1e-6, 0.001), (1e-3, 1.0)):  # both ends, where the quotient is not exact
        point = space.complete({"unfreeze_depth": 1, "head_lr": 1e-3, "backbone_lr": rate})
        assert point["backbone_lr_ratio"] == pytest.approx(ratio)
        assert space.to_config(point).backbone_lr == pytest.approx(rate)
    default = space.complete({"unfreeze_depth": 2, "head_lr": 1e-1})
    assert space.to_config(default).backbone_lr == pytest.approx(1e-4), "the default of section 4"
    moved = space.complete({"unfreeze_depth": 2, "head_lr": 1e-4})
    assert space.to_config(moved).backbone_lr == pytest.approx(1e-4)
    with pytest.raises(ValueError, match="backbone_lr 0.01 is outside the space, where it is 0.001 times 0.001 to 1"):
        space.complete({"unfreeze_depth": 1, "head_lr": 1e-3, "backbone_lr": 0.01})


@pytest.mark.parametrize(
    ("written", "path", "words"),
    [
        ({"ratio_of": "weight_decay", "log": [0.1, 1]}, "ratio_of", "may be a ratio of head_lr, not of 'weight_decay'"),
        ({"ratio_of": None, "log": [0.1, 1]}, "ratio_of", "not of null"),
        ({"ratio_of": "head_lr"}, "", "exactly one of"),
        ({"ratio_of": "head_lr", "log": [0, 1]}, "log[0]", "begins above 0"),
        ({"ratio_of": "head_lr", "float": [-1, 1]}, "float[0]", "the ratio of backbone_lr to head_lr takes numbers"),
        (
            {"ratio_of": "head_lr", "log": [0.1, 1000]},
            "",
            "from above 0 to 10, not 100.0, the largest ratio of head_lr",
        ),
        ({"ratoi_of": "head_lr", "log": [0.1, 1]}, "ratoi_of", "did you mean 'ratio_of'"),
    ],
)
def test_each_wrong_ratio_is_one_problem(tmp_path: Path, written: Any, path: str, words: str) -> None:
    found = problems(tmp_path, written)
    assert [problem.dotted for problem in found] == [f"space.backbone_lr.{path}".rstrip(".")]
    assert words.replace("from above", "above") in found[0].message and found[0].line > 0


def test_only_the_backbones_rate_may_be_a_ratio(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, 1e-4, weight_decay={"ratio_of": "head_lr", "log": [0.1, 1]})
    assert found.dotted == "space.weight_decay.ratio_of" and "goes with backbone_lr" in found.message


def test_a_starting_point_outside_names_both_lines(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, RATIO, search={"start_with": [{"unfreeze_depth": 1, "backbone_lr": 0.5}]})
    assert found.dotted == "search.start_with[0].backbone_lr" and "line" in found.message


def test_a_ratio_is_decided_after_what_it_is_a_ratio_of(tmp_path: Path) -> None:
    space = read(tmp_path, head_lr={"when": {"batch_size": 32}, "log": [1e-4, 1e-1]}, batch_size=[16, 32])
    names = space.names()
    assert names.index("batch_size") < names.index("head_lr") < names.index("backbone_lr")
    found = problems(tmp_path, RATIO, head_lr={"when": {"backbone_lr": {"ge": 1e-3}}, "log": [1e-4, 1e-1]})
    assert [problem.dotted for problem in found] == ["space.head_lr.when"] and "circle" in found[0].message
