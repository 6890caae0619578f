"""However a valid file is mutated: it loads, or every error names the mutated line; never another exception."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from space_mutations import Mutant, mutate

from tlsearch.core.errors import SpaceError
from tlsearch.space import load

FULL = """
name: emoji
data:
  source: folder
  path: ./images
  split: {val: 0.2, test: 0.1, seed: 3, group_by: '^(\\w+)'}
  image_size: 96
weights:
  mobilenet_v2: ./weights/some.pth
  resnet18: none
  timm/tf_efficientnet_lite0: {path: weights/some.pth, match: order}
space:
  backbone: [mobilenet_v2, resnet18, vit_b_16, timm/tf_efficientnet_lite0]
  unfreeze_depth: {int: [0, 5]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {when: {unfreeze_depth: {ge: 2}, backbone: [resnet18, mobilenet_v2]}, log: [1.0e-6, 1.0e-3]}
  bn_policy: [frozen, train, adapt, stats]
  unfreeze_schedule: [at_once, progressive]
  augmentation: [none, light, strong]
  weight_decay: {float: [0.0, 0.1], step: 0.05}
  batch_size: [16, 32, 64]
  warmup_epochs: [0, 2]
  layer_decay: {when: {optimizer: adamw}, float: [0.5, 1.0]}
  mixup: 0.2
search:
  trials: 64
  max_epochs: 20
  time_budget: 1h30m
  metric: val_accuracy
  sampler: tpe
  scheduler: {asha: {grace_period: 2, reduction_factor: 3, brackets: 1}}
  start_with:
    - {backbone: resnet18, unfreeze_depth: 3, head_lr: 1.0e-3, backbone_lr: 1.0e-4}
    - {unfreeze_depth: 0, batch_size: 16}
  max_failures: 2
  seed: 7
resources: {gpus_per_trial: auto, cpus_per_trial: 1, max_concurrent: 4, precision: fp32}
cache: {images_gb: 2.5, features_gb: auto, feature_precision: full, views: 1}
tracking: {uri: "sqlite:///mlflow.db", keep_best: 3}
storage: ./runs
"""

SMALL = """
name: digits
data: {source: digits}
weights: {resnet18: none}
space:
  backbone: resnet18
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-3, 1.0e-1]}
  backbone_lr: {ratio_of: head_lr, log: [1.0e-3, 1.0]}
search: {trials: 4, max_epochs: 2, sampler: fixed, scheduler: none, start_with: [{head_lr: 0.01}]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mutations")
    (path / "images").mkdir()
    (path / "weights").mkdir()
    (path / "weights" / "some.pth").touch()
    return path


def check(mutant: Mutant, folder: Path, seen: Counter[str]) -> None:
    file = folder / "space.yaml"
    file.write_text(mutant.text, encoding="utf-8")
    seen[mutant.kind] += 1
    try:
        load(file)
        seen["valid"] += 1
    except SpaceError as error:
        assert mutant.kind != "harmless", (mutant.what, error.faults, mutant.text)
        assert error.faults
        for problem in error.faults:
            where = (mutant.what, str(problem), sorted(mutant.lines), mutant.text)
            assert mutant.is_named(problem.line, problem.message), where


def run(text: str, folder: Path, examples: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(examples):
        check(mutate(text, seed), folder, seen)
    assert seen["syntax"] <= examples / 5, seen
    assert seen["valid"] >= examples / 5, seen


def test_the_unmutated_files_are_valid(folder: Path) -> None:
    for text in (FULL, SMALL):
        (folder / "space.yaml").write_text(text)
        load(folder / "space.yaml")


@pytest.mark.parametrize("text", [FULL, SMALL], ids=["full", "small"])
def test_mutations_load_or_name_their_line(text: str, folder: Path) -> None:
    run(text, folder, 40)


@pytest.mark.slow
@pytest.mark.parametrize("text", [FULL, SMALL], ids=["full", "small"])
def test_many_mutations_load_or_name_their_line(text: str, folder: Path) -> None:
    run(text, folder, 200)
