"""Any space file, however wrong: its errors are listed, or its first batch runs. Never another exception."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from space_mutations import Mutant, mutate

from tlsearch.app.checks.check_file import check_file

SPACE = """
name: mutants
data:
  source: folder
  path: ./images
  image_size: 32
  split: {val: 0.2, test: 0.1, seed: 3}
weights: {resnet18: none, mobilenet_v3_small: none}
space:
  backbone: [resnet18, mobilenet_v3_small]
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {when: {unfreeze_depth: {ge: 1}}, log: [1.0e-6, 1.0e-3]}
  bn_policy: [frozen, train]
  augmentation: [none, light]
  batch_size: [4, 8]
search:
  trials: 6
  max_epochs: 3
  time_budget: 10m
  scheduler: {asha: {grace_period: 1, reduction_factor: 3}}
  start_with: [{backbone: resnet18, unfreeze_depth: 1, head_lr: 1.0e-3, backbone_lr: 1.0e-4}]
resources: {cpus_per_trial: 1}
tracking: {keep_best: 2}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mutants")
    for split, count in (("train", 6), ("val", 2)):
        for shade, label in enumerate(("a", "b")):
            place = root / "images" / split / label
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (36, 36), (100 * shade, number, 0)).save(place / f"{number}.png")
    return root


def _examine(folder: Path, mutant: Mutant, seen: Counter[str]) -> None:
    file = folder / "space.yaml"
    file.write_text(mutant.text)
    report = check_file(file, with_batch=True)
    seen["valid" if report.ok else "faulty"] += 1
    seen["syntax"] += mutant.kind == "syntax"
    for problem in report.problems:
        assert mutant.is_named(problem.line, problem.message), f"{mutant.what}\n{problem}\n{mutant.text}"


def _run(folder: Path, examples: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(examples):
        _examine(folder, mutate(SPACE, seed), seen)
    assert seen["valid"] >= examples / 5, seen  # these reached the first batch
    assert seen["syntax"] <= examples / 5, seen


def test_forty_mutants(folder: Path) -> None:
    _run(folder, 40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_mutants(folder: Path) -> None:
    _run(folder, 200)
