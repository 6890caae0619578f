"""Constraints before a trial is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlsearch.app.checks.check_file import check_file
from tlsearch.app.checks.feasibility import constant_cost, limit_problems, model_sizes
from tlsearch.space import load

FILE = """
name: limits
data: {{source: digits}}
weights: {{resnet18: none, squeezenet1_1: none}}
space: {{backbone: [resnet18, squeezenet1_1]}}
search:
  constraints: {constraints}
"""


def _write(folder: Path, constraints: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(FILE.format(constraints=constraints))
    return path


def test_sizes_are_counted_where_a_constraint_asks(tmp_path: Path) -> None:
    file, space = load(_write(tmp_path, "{params_millions: {max: 5}, checkpoint_mb: {max: 40}}"))
    found = model_sizes(file, space, 10)
    sizes = {spec.backbone: one for spec, one in found.items()}
    assert sizes["resnet18"]["params_millions"] == pytest.approx(11.18, abs=0.01)
    assert sizes["resnet18"]["checkpoint_mb"] == pytest.approx(44.8, abs=0.1)
    assert sizes["squeezenet1_1"]["params_millions"] < 1
    assert limit_problems(file, found) == []
    file, space = load(_write(tmp_path, "{latency_ms: {max: 20}}"))
    assert model_sizes(file, space, 10) == {}


def test_a_head_is_as_wide_as_the_features_that_it_sees(tmp_path: Path) -> None:
    path = _write(tmp_path, "{params_millions: {max: 100}}")
    tokens = "[resnet18, vit_b_32], features: [cls, last4]"
    text = (
        path.read_text().replace("[resnet18, squeezenet1_1]", tokens).replace("squeezenet1_1: none", "vit_b_32: none")
    )
    path.write_text(text)
    file, space = load(path)
    found = {
        (spec.backbone, spec.features): one["params_millions"] for spec, one in model_sizes(file, space, 10).items()
    }
    assert {name for name, features in found if features is None} >= {"resnet18"} and ("resnet18", "cls") not in found
    assert found["vit_b_32", "last4"] - found["vit_b_32", "cls"] == pytest.approx(3 * 768 * 10 / 1e6)


def test_a_constraint_that_no_backbone_keeps_is_a_problem(tmp_path: Path) -> None:
    report = check_file(_write(tmp_path, "{params_millions: {max: 0.5}, checkpoint_mb: {max: 40}}"))
    (problem,) = report.problems
    assert problem.dotted == "search.constraints.params_millions.max" and problem.line == 7
    assert problem.message == (
        "no backbone of the space has params_millions of at most 0.5; the smallest, squeezenet1_1, has 0.728"
    )


@pytest.mark.parametrize(
    ("space", "cost", "warned"),
    [
        ("backbone: resnet18", "latency_ms", "several backbones or image sizes"),
        ("backbone: resnet18, image_size: 64", "latency_ms", "several backbones or image sizes"),
        ("backbone: resnet18, image_size: [64, 96]", "params_millions", "several backbones, or"),
        ("backbone: vit_b_32, features: mean", "latency_ms", "several backbones or image sizes"),
        ("backbone: resnet18, image_size: [64, 96]", "latency_ms", ""),
        ("backbone: [resnet18, squeezenet1_1]", "latency_ms", ""),
        ("backbone: vit_b_32, features: [mean, last4]", "params_millions", ""),
    ],
)
def test_a_cost_that_all_trials_share_is_a_warning(tmp_path: Path, space: str, cost: str, warned: str) -> None:
    path = tmp_path / "space.yaml"
    weights = "{resnet18: none, squeezenet1_1: none, vit_b_32: none}"
    objectives = f"search: {{objectives: [val_accuracy, {cost}]}}"
    path.write_text(f"name: a\ndata: {{source: digits}}\nweights: {weights}\nspace: {{{space}}}\n{objectives}\n")
    found = constant_cost(*load(path))
    assert bool(found) == bool(warned) and warned in found


def test_the_warning_of_a_shared_cost_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    objectives = "search: {objectives: [val_accuracy, params_millions]}"
    path.write_text(f"name: a\ndata: {{source: digits}}\nspace: {{backbone: resnet18}}\n{objectives}\n")
    (warning,) = check_file(path, with_model=False).warnings
    assert (warning.dotted, warning.line, warning.message) == ("search.objectives", 4, constant_cost(*load(path)))


def test_one_objective_has_no_cost_to_warn_of(tmp_path: Path) -> None:
    assert constant_cost(*load(_write(tmp_path, "{params_millions: {max: 5}}"))) == ""
