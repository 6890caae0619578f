"""What the section `space` may say, and every way to say it wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tlsearch.config import nearest
from tlsearch.config.document import key_aliases
from tlsearch.config.document.key_aliases import home
from tlsearch.core.errors import SpaceError, SpaceProblem
from tlsearch.space import PARAMETERS, Choice, Fixed, FloatRange, IntRange, Space, load, unused_weights
from tlsearch.space.libraries import backbone_checks

BACKBONES = ["resnet18", "vit_b_16"]


def write(folder: Path, space: dict[str, Any], **sections: Any) -> Path:
    tree = {"name": "a", "data": {"source": "digits"}, **sections, "space": {"backbone": BACKBONES, **space}}
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def read(folder: Path, space: dict[str, Any], **sections: Any) -> Space:
    return load(write(folder, space, **sections))[1]


def problems(folder: Path, space: dict[str, Any], **sections: Any) -> tuple[SpaceProblem, ...]:
    with pytest.raises(SpaceError) as caught:
        load(write(folder, space, **sections))
    return caught.value.faults


@pytest.mark.parametrize(
    ("name", "written", "domain"),
    [
        ("head_lr", 0.1, Fixed(value=0.1)),
        ("head_lr", 1, Fixed(value=1.0)),
        ("head_lr", [0.1], Fixed(value=0.1)),
        ("head_lr", [0.1, 1], Choice(values=(0.1, 1.0))),
        ("head_lr", {"log": [1e-4, 1e-1]}, FloatRange(low=1e-4, high=1e-1, log=True)),
        ("head_lr", {"float": [0.1, 0.5], "step": 0.1}, FloatRange(low=0.1, high=0.5, step=0.1)),
        ("head_lr", {"log": [0.1, 0.1]}, Fixed(value=0.1)),
        ("weight_decay", {"float": [0, 1]}, FloatRange(low=0.0, high=1.0)),
        ("unfreeze_depth", {"int": [0, 5]}, IntRange(low=0, high=5)),
        ("unfreeze_depth", {"int": [1, 5], "step": 2}, IntRange(low=1, high=5, step=2)),
        ("unfreeze_depth", [0, 2, 5], Choice(values=(0, 2, 5))),
        ("unfreeze_depth", {"choice": [0, 2]}, Choice(values=(0, 2))),
        ("augmentation", ["none", "light"], Choice(values=("none", "light"))),
        ("augmentation", "light", Fixed(value="light")),
    ],
)
def test_forms(tmp_path: Path, name: str, written: Any, domain: object) -> None:
    assert read(tmp_path, {name: written}).dimensions[name].domain == domain


def test_a_number_too_large_to_read_is_one_problem(tmp_path: Path) -> None:
    (only,) = problems(tmp_path, {"head_lr": {"log": [1e-4, 10**30]}})
    assert "2^63" in only.message, "and not that the stand-in is below the range"


def test_what_is_left_out_is_fixed_at_its_default(tmp_path: Path) -> None:
    space = read(tmp_path, {"backbone": "resnet18"})
    config = space.to_config({})
    assert (config.backbone, config.unfreeze_depth, config.head_lr, config.backbone_lr) == ("resnet18", 0, 1e-3, None)
    assert (config.bn_policy, config.augmentation, config.weight_decay, config.batch_size) == (
        "frozen",
        "none",
        1e-4,
        32,
    )
    assert space.default_point() == {}


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({"backbone": "resnet81"}, "backbone", "did you mean 'resnet1"),
        ({"backbone": ["resnet18", "resnet81"]}, "backbone[1]", "not known"),
        ({"backbone": "tf_efficientnet_lite0"}, "backbone", "did you mean 'timm/tf_efficientnet_lite0'"),
        ({"backbone": "timm/xcit_nano_12_p8_224"}, "backbone", "is not known"),
        ({"backbone": "resnet50@IMAGENET1K_V3"}, "backbone", "did you mean 'IMAGENET1K_V"),
        ({"backbone": "resnet50@"}, "backbone", "no weights"),
        ({"backbone": "timm/efficientnet_b6"}, "backbone", "no weights are published"),
        ({"backbone": 5}, "backbone", "a name like"),
        ({"backbone": []}, "backbone", "at least one"),
        ({"backbone": None}, "backbone", "must not be empty"),
        ({"backbone": {"int": [0, 1]}}, "backbone", "from a list"),
        ({"backbone": ["resnet18", "resnet18"]}, "backbone[1]", "stands in it twice"),
        ({"backbone": {"when": {"head_lr": 1}, "choice": BACKBONES}}, "backbone.when", "no condition"),
        ({"heed_lr": 0.1}, "heed_lr", "did you mean 'head_lr'"),
        ({"head_lr": "fast"}, "head_lr", "numbers above 0"),
        ({"head_lr": "0.001"}, "head_lr", "not '0.001'; write it without quotes"),
        ({"batch_size": "32"}, "batch_size", "not '32'; write it without quotes"),
        ({"head_lr": 0}, "head_lr", "numbers above 0"),
        ({"head_lr": float("nan")}, "head_lr", "numbers above 0"),
        ({"head_lr": True}, "head_lr", "not true"),
        ({"head_lr": [0.1, [1]]}, "head_lr[1]", "numbers"),
        ({"head_lr": {"int": [1, 2]}}, "head_lr.int", "write log or float"),
        ({"head_lr": {"log": [0.1, 0.01]}}, "head_lr.log", "0.1 is above 0.01"),
        ({"head_lr": {"log": [0, 0.01]}}, "head_lr.log[0]", "begins above 0"),
        ({"head_lr": {"log": [0.1]}}, "head_lr.log", "[low, high]"),
        ({"head_lr": {"log": 0.1}}, "head_lr.log", "[low, high]"),
        ({"head_lr": {"log": [0.1, "b"]}}, "head_lr.log[1]", "numbers"),
        ({"head_lr": {"log": [0.01, 0.1], "step": 0.01}}, "head_lr.step", "not with log"),
        ({"head_lr": {"float": [0.1, 0.4], "step": 0.2}}, "head_lr.step", "whole steps"),
        ({"head_lr": {"float": [0.1, 0.4], "step": 0}}, "head_lr.step", "above 0"),
        ({"head_lr": {"lg": [0.1, 1]}}, "head_lr.lg", "did you mean 'log'"),
        ({"head_lr": {"log": [0.1, 1], "float": [0.1, 1]}}, "head_lr", "exactly one"),
        ({"head_lr": {}}, "head_lr", "exactly one"),
        ({"unfreeze_depth": 6}, "unfreeze_depth", "from 0 to 5, not 6"),
        ({"unfreeze_depth": 2.0}, "unfreeze_depth", "whole numbers"),
        ({"unfreeze_depth": {"int": [0, 9]}}, "unfreeze_depth.int[1]", "from 0 to 5, not 9"),
        ({"unfreeze_depth": {"log": [1, 5]}}, "unfreeze_depth.log", "write int"),
        ({"unfreeze_depth": {"int": [0, 5], "step": 1.5}}, "unfreeze_depth.step", "whole number"),
        ({"batch_size": 0}, "batch_size", "from 1"),
        ({"augmentation": "ligth"}, "augmentation", "did you mean 'light'"),
        ({"bn_policy": ["frozen", "adopt"]}, "bn_policy[1]", "did you mean 'adapt'"),
        ({"unfreeze_schedule": "progresive"}, "unfreeze_schedule", "did you mean 'progressive'"),
        ({"optimizer": ["adamw", "sdg"]}, "optimizer[1]", "did you mean 'sgd'"),
        ({"mixup": {"float": [0, 11]}}, "mixup.float[1]", "from 0 to 10, not 11"),
        ({"ema": 1.0}, "ema", "from 0 to 0.99999, not 1.0"),
        ({"ema": False}, "ema", "not false"),
        ({"layer_decay": {"float": [0, 1]}}, "layer_decay.float[0]", "above 0 to 1, not 0"),
        ({"grad_clip": 0}, "grad_clip", "above 0"),
        ({"label_smoothing": -0.1}, "label_smoothing", "from 0"),
        ({"head_dropout": 1}, "head_dropout", "from 0 to 0.95"),
        ({"head_dropout": None}, "head_dropout", "must not be empty"),
        ({"warmup_epochs": 0.5}, "warmup_epochs", "whole numbers"),
        ({"lr_schedule": "cosinus"}, "lr_schedule", "did you mean 'cosine'"),
        ({"head_init": "prob"}, "head_init", "did you mean 'probe'"),
        ({"class_balance": True}, "class_balance", "weighted_loss"),
        ({"head_lr": {"when": {"nothing": 1}, "log": [0.1, 1]}}, "head_lr.when.nothing", "not known"),
        ({"head_lr": {"when": {"head_lr": 1}, "log": [0.1, 1]}}, "head_lr.when.head_lr", "itself"),
        ({"head_lr": {"when": {}, "log": [0.1, 1]}}, "head_lr.when", "mapping"),
        ({"head_lr": {"when": {"backbone": {"ge": 1}}, "log": [0.1, 1]}}, "head_lr.when.backbone", "no order"),
        ({"head_lr": {"when": {"backbone": "resnet34"}, "log": [0.1, 1]}}, "head_lr.when.backbone", "never hold"),
        ({"head_lr": {"when": {"unfreeze_depth": {"ge": 2}}, "log": [0.1, 1]}}, "head_lr.when.unfreeze_depth", "never"),
        ({"head_lr": {"when": {"batch_size": {"gt": 2}}, "log": [0.1, 1]}}, "head_lr.when.batch_size.gt", "ge, le"),
        ({"head_lr": {"when": {"batch_size": {"ge": 9, "le": 2}}, "log": [1, 2]}}, "head_lr.when.batch_size", "above"),
    ],
)  # fmt: skip
def test_each_wrong_dimension_is_one_problem(tmp_path: Path, space: dict[str, Any], path: str, words: str) -> None:
    found = problems(tmp_path, space)
    assert [problem.dotted for problem in found] == [f"space.{path}"]
    assert words in found[0].message
    assert found[0].line > 0


@pytest.mark.parametrize(
    ("depth", "schedule", "needed"),
    [
        (5, "progressive", 6),
        ({"int": [0, 4]}, ["at_once", "progressive"], 5),
        ([1, 3], "progressive", 4),
        ({"int": [0, 5]}, {"when": {"unfreeze_depth": {"le": 3}}, "choice": ["at_once", "progressive"]}, 4),
        ({"int": [0, 5]}, "at_once", 1),
    ],
)
def test_progressive_needs_an_epoch_for_each_phase(tmp_path: Path, depth: Any, schedule: Any, needed: int) -> None:
    space = {"unfreeze_depth": depth, "unfreeze_schedule": schedule}
    read(tmp_path, space, search={"max_epochs": needed})
    if needed > 1:
        (found,) = problems(tmp_path, space, search={"max_epochs": needed - 1})
        assert found.dotted == "space.unfreeze_schedule"
        assert f"has {needed} phases" in found.message and "not " + str(needed - 1) in found.message
        assert found.message.count("line") >= 2


@pytest.mark.parametrize("written", [4, [0, 4], {"int": [0, 4]}])
def test_a_warmup_ends_before_the_trial(tmp_path: Path, written: Any) -> None:
    (found,) = problems(tmp_path, {"warmup_epochs": written}, search={"max_epochs": 4})
    assert found.dotted == "space.warmup_epochs"
    assert "up to 4, and must be fewer than search.max_epochs, 4 (line" in found.message
    read(tmp_path, {"warmup_epochs": written}, search={"max_epochs": 5})


def test_a_missing_backbone_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("name: a\ndata: {source: digits}\nspace:\n  head_lr: 0.1\n")
    with pytest.raises(SpaceError) as caught:
        load(path)
    assert [(problem.dotted, problem.line) for problem in caught.value.faults] == [("space.backbone", 3)]


def test_a_circle_of_conditions_is_found(tmp_path: Path) -> None:
    space = {
        "unfreeze_depth": {"when": {"batch_size": {"ge": 16}}, "int": [0, 5]},
        "batch_size": {"when": {"backbone_lr": {"ge": 1e-4}}, "choice": [16, 32]},
        "backbone_lr": {"log": [1e-5, 1e-3]},  # reads unfreeze_depth by the system's own condition
        "head_lr": {"when": {"batch_size": 16}, "log": [0.1, 1]},
    }
    assert {problem.dotted for problem in problems(tmp_path, space)} == {
        "space.unfreeze_depth.when",
        "space.batch_size.when",
    }


def test_dimensions_are_decided_after_those_they_depend_on(tmp_path: Path) -> None:
    space = read(tmp_path, {"unfreeze_depth": {"when": {"batch_size": 64}, "int": [1, 5]}, "batch_size": [32, 64]})
    names = space.names()
    assert names.index("batch_size") < names.index("unfreeze_depth") < names.index("backbone_lr")


@pytest.mark.parametrize(
    ("entry", "name", "words"),
    [
        ({"backbone": "resnet34"}, "backbone", "one of resnet18, vit_b_16 (lines"),
        ({"backbone": "resnet81"}, "backbone", "not known"),
        ({"head_lr": 5}, "head_lr", "outside the space"),
        ({"head_lr": "x"}, "head_lr", "numbers"),
        ({"heed_lr": 0.1}, "heed_lr", "did you mean 'head_lr'"),
        ({"unfreeze_depth": 7}, "unfreeze_depth", "from 0 to 5"),
        ({"backbone_lr": 1e-4}, "backbone_lr", "no effect where unfreeze_depth is 0"),
        ({"backbone": "vit_b_16", "bn_policy": "frozen"}, "bn_policy", "no batch norm"),
        ({"bn_policy": "train"}, "bn_policy", "at unfreeze_depth 0"),
        ({"batch_size": 64}, "batch_size", "fixed at 32"),
        ({"weight_decay": 0.1, "unfreeze_depth": 1}, "weight_decay", "only where unfreeze_depth is at least 2"),
    ],
)  # fmt: skip
def test_starting_points_outside_the_space_are_problems(
    tmp_path: Path, entry: dict[str, Any], name: str, words: str
) -> None:
    space = {
        "unfreeze_depth": {"int": [0, 5]},
        "head_lr": {"log": [1e-4, 1e-1]},
        "backbone_lr": {"log": [1e-6, 1e-3]},
        "bn_policy": ["frozen", "train"],
        "weight_decay": {"when": {"unfreeze_depth": {"ge": 2}}, "float": [0.0, 0.5]},
    }
    found = problems(tmp_path, space, search={"start_with": [{}, entry]})
    assert [problem.dotted for problem in found] == [f"search.start_with[1].{name}"]
    assert words in found[0].message


def test_moving_batch_norm_needs_two_images(tmp_path: Path) -> None:
    space = {
        "batch_size": {"int": [1, 8]},
        "bn_policy": ["frozen", "train", "stats"],
        "unfreeze_depth": {"int": [0, 2]},
    }
    (found,) = problems(tmp_path, space)
    assert found.dotted == "space.batch_size" and "2 or more with bn_policy train or stats" in found.message
    assert "line" in found.message
    read(tmp_path, space | {"bn_policy": ["frozen", "adapt"]})
    for others in ({"backbone": "vit_b_16"}, {"bn_policy": ["frozen", "train"], "unfreeze_depth": 0}):
        assert [problem.dotted.partition("[")[0] for problem in problems(tmp_path, space | others)] == [
            "space.bn_policy"
        ]


def test_image_sizes_that_do_not_suit_name_the_backbones(tmp_path: Path) -> None:
    found = problems(
        tmp_path, {"backbone": ["resnet18", "inception_v3", "vit_b_16"]}, data={"source": "digits", "image_size": 70}
    )
    assert [problem.dotted for problem in found] == ["data.image_size"]
    assert "inception_v3 takes at least 75 px" in found[0].message
    assert "vit_b_16 takes multiples of 16 px" in found[0].message
    assert "resnet18" not in found[0].message


@pytest.mark.parametrize(
    ("weights", "path", "words"),
    [
        ({"resnet81": "none"}, "weights.resnet81", "did you mean 'resnet18'"),
        (
            {"resnet18": {"path": "default", "transform": "IMAGENET1K_V9"}},
            "weights.resnet18.transform",
            "IMAGENET1K_V1",
        ),
    ],
)
def test_weights_are_for_backbones_of_the_space(tmp_path: Path, weights: Any, path: str, words: str) -> None:
    found = problems(tmp_path, {}, weights=weights)
    assert [problem.dotted for problem in found] == [path]
    assert words in found[0].message


def test_weights_of_an_unused_backbone_are_a_warning_with_a_place(tmp_path: Path) -> None:
    path = write(tmp_path, {"backbone": ["resnet18", "mobilenet_v2"]}, weights={"resnet34": "none", "resnet18": "none"})
    (warning,) = unused_weights(*load(path))
    assert warning.dotted == "weights.resnet34" and "the space has no backbone 'resnet34'" in warning.message
    assert "resnet34" in path.read_text().splitlines()[warning.line - 1]
    assert unused_weights(*load(path, ["space.backbone=[resnet18, resnet34]"])) == []


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *(
            ("lr", "head_lr"),
            ("learning_rate", "head_lr"),
            ("LR", "head_lr"),
            ("wd", "weight_decay"),
            ("bs", "batch_size"),
        ),
        *(("dropout", "head_dropout"), ("drop_rate", "head_dropout"), ("model", "backbone"), ("arch", "backbone")),
        *(("opt", "optimizer"), ("max_grad_norm", "grad_clip"), ("clip-grad", "grad_clip"), ("freeze_bn", "bn_policy")),
        *(("mixup_alpha", "mixup"), ("smoothing", "label_smoothing"), ("aa", "augmentation"), ("sched", "lr_schedule")),
        ("learningRate", "head_lr"),
    ],
)
def test_names_of_other_tools_suggest_ours(tmp_path: Path, key: str, meant: str) -> None:
    found = problems(tmp_path, {key: 1})
    assert f"did you mean {meant!r}" in "".join(problem.message for problem in found)


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        *(
            ("space", "epochs", "search.max_epochs"),
            ("space", "trials", "search.trials"),
            ("space", "seed", "search.seed"),
        ),
        *(
            ("search", "lr", "space.head_lr"),
            ("search", "backbone", "space.backbone"),
            ("search", "epochs", "'max_epochs'"),
        ),
        *(("data", "batch_size", "space.batch_size"), ("data", "root", "'path'"), ("search", "n_trials", "'trials'")),
        *(
            ("resources", "gpus", "'gpus_per_trial'"),
            ("tracking", "mlflow_uri", "'uri'"),
            ("data", "val_split", "split.val"),
        ),
    ],
)
def test_a_key_of_another_section_is_sent_there(tmp_path: Path, section: str, key: str, meant: str) -> None:
    given = (
        {"data": {"source": "digits", key: 1}}
        if section == "data"
        else {}
        if section == "space"
        else {section: {key: 1}}
    )
    found = problems(tmp_path, {key: 1} if section == "space" else {}, **given)
    assert any(meant in problem.message and "did you mean" in problem.message for problem in found), found


def test_the_table_of_names_has_every_dimension() -> None:
    for name in PARAMETERS:
        assert home(name) == f"space.{name}" and nearest(name, PARAMETERS) == name
    for key, others in key_aliases._OTHERS.items():
        for other in others.split():
            assert other not in PARAMETERS or key == f"space.{other}", f"{other} is a name of ours"


def test_a_transform_may_be_a_version_or_a_backbone(tmp_path: Path) -> None:
    for transform in ("IMAGENET1K_V1", "resnet50", "resnet50@IMAGENET1K_V2", "timm/tf_efficientnet_lite0"):
        read(tmp_path, {}, weights={"resnet18": {"path": "none", "transform": transform}})


def test_timm_backbones_need_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone_checks, "_has_timm", lambda: False)
    found = problems(tmp_path, {"backbone": ["resnet18", "timm/tf_efficientnet_lite0"]})
    assert [problem.dotted for problem in found] == ["space.backbone[1]"]
    assert "pip install 'tlsearch[timm]'" in found[0].message


def test_a_faulty_backbone_does_not_hide_other_problems_nor_make_new_ones(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        {"backbone": ["resnet18", "resnet81"], "head_lr": {"log": [1, 0.1]}, "bn_policy": "trian"},
        weights={"resnet81": "none"},
        search={"start_with": [{"backbone": "resnet81", "unfreeze_depth": 9, "head_lr": 0.5}]},
    )
    assert {problem.dotted for problem in found} == {
        "space.backbone[1]",
        "space.head_lr.log",
        "space.bn_policy",
        "weights.resnet81",
        "search.start_with[0].unfreeze_depth",
    }


def test_reading_a_space_imports_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path, {})
    heavy = ("torch", "torchvision", "timm", "numpy", "ray", "optuna", "mlflow")
    code = (
        f"import sys; from pathlib import Path; from tlsearch.space import load; load(Path({str(path)!r})); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_timm_is_found_without_importing_it() -> None:
    assert backbone_checks._has_timm() == (importlib.util.find_spec("timm") is not None)
