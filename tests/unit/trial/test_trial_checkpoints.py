"""Going on from a running checkpoint, and the best epoch's model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tlsearch.core.errors import StorageError
from tlsearch.core.types import EpochReport, TrialAssignment, repeatable
from tlsearch.data import normalise, open_pixels
from tlsearch.trial import FineTuning, finetuning, load_trained
from tlsearch.trial.process_cache import held_index

Assign = Callable[..., TrialAssignment]


def finish(trial: FineTuning, max_epochs: int = 3) -> list[dict[str, float]]:
    while trial.epochs_done < max_epochs:
        trial.step()
    trial.close()
    return curve(tuple(trial.reports))


def curve(reports: tuple[EpochReport, ...]) -> list[dict[str, float]]:
    return [{name: v for name, v in report.metrics.items() if repeatable(name)} for report in reports]


@pytest.fixture
def save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)


def test_a_short_trial_writes_no_running_checkpoint(assign: Assign, tmp_path: Path) -> None:
    finish(FineTuning(assign()))
    assert {path.name for path in (tmp_path / "trial").iterdir()} == {"best", "val_logits.safetensors"}


EVERYTHING: dict[str, Any] = {
    "optimizer": "sgd",
    "lr_schedule": "one_cycle",
    "warmup_epochs": 1,
    "mixup": 0.2,
    "cutmix": 1.0,
    "class_balance": "sampler",
    "label_smoothing": 0.1,
    "head_dropout": 0.3,
    "ema": 0.9,
    "grad_clip": 1.0,
}


@pytest.mark.parametrize(
    ("depth", "policy", "more"),
    [
        (0, "frozen", {"ema": 0.9, "lr_schedule": "cosine", "head_dropout": 0.5, "class_balance": "sampler"}),
        pytest.param(0, "stats", {}, marks=pytest.mark.slow),
        pytest.param(2, "train", {"augmentation": "strong", **EVERYTHING}, marks=pytest.mark.slow),
        pytest.param(5, "train", {}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("save_always")
def test_going_on_repeats_the_curve_to_the_bit(
    assign: Assign, tmp_path: Path, depth: int, policy: str, more: dict[str, Any]
) -> None:
    def assignment(name: str) -> TrialAssignment:
        return assign(name, depth=depth, policy=policy, setup={"max_epochs": 4}, **more)

    expected = finish(FineTuning(assignment("straight")), 4)
    for kill_after in (1, 2, 3):
        interrupted = FineTuning(assignment("interrupted"))
        assert interrupted.epochs_done == kill_after - 1
        assert curve(tuple(interrupted.reports)) == expected[: kill_after - 1]
        interrupted.step()
        del interrupted  # as a killed worker: never closed
    resumed = FineTuning(assignment("interrupted"))
    assert resumed.epochs_done == 3
    assert finish(resumed, 4) == expected
    contents = [
        json.loads((tmp_path / name / "best/checkpoint.json").read_text()) for name in ("straight", "interrupted")
    ]
    for key in ("epoch", "value", "weights_sha256", "frozen_sha256"):
        assert contents[0][key] == contents[1][key]
    assert len(list((tmp_path / "interrupted/running").iterdir())) == 2  # older states are deleted


@pytest.mark.parametrize(
    "damage",
    ["tensors", "json", "config", *(pytest.param(one, marks=pytest.mark.slow) for one in ("seed", "max_epochs"))],
)
@pytest.mark.usefixtures("save_always")
def test_a_checkpoint_that_cannot_be_used_costs_only_time(assign: Assign, tmp_path: Path, damage: str) -> None:
    assignment = assign(depth=1, policy="train")
    trial = FineTuning(assignment)
    trial.step()
    running = tmp_path / "trial/running"
    if damage == "tensors":
        state = next(running.glob("state-*"))
        state.write_bytes(state.read_bytes()[:-1])
    elif damage == "json":
        (running / "running.json").write_text("[1]")
    elif damage == "seed":
        assignment = replace(assignment, seed=7)
    elif damage == "config":
        assignment = replace(assignment, config=replace(assignment.config, head_lr=0.5))
    else:
        assignment = replace(assignment, setup=replace(assignment.setup, max_epochs=2))
    again = FineTuning(assignment)
    assert again.epochs_done == 0
    expected = finish(FineTuning(replace(assignment, directory=str(tmp_path / "fresh"))), 2)
    assert finish(again, 2)[:2] == expected


@pytest.mark.parametrize(
    ("depth", "policy", "ema"),
    [
        (0, "frozen", 0.0),
        (2, "stats", 0.9),
        pytest.param(0, "stats", 0.0, marks=pytest.mark.slow),
        pytest.param(1, "train", 0.9, marks=pytest.mark.slow),
        pytest.param(5, "adapt", 0.0, marks=pytest.mark.slow),
        pytest.param(5, "train", 0.0, marks=pytest.mark.slow),
    ],
)
def test_the_loaded_model_predicts_what_the_trial_reported(
    assign: Assign, tmp_path: Path, depth: int, policy: str, ema: float
) -> None:
    assignment = assign(depth=depth, policy=policy, ema=ema)
    trial = FineTuning(assignment)
    finish(trial)
    model, meta = load_trained(tmp_path / "trial/best")
    assert not model.training
    assert (meta.epoch, meta.value, meta.metric) == (trial.best_epoch, trial.best_value, "val_accuracy")
    assert meta.classes == ("blue", "green", "red")
    assert meta.config == assignment.config
    index = held_index(assignment.setup.data)
    assert meta.transform.crop_size == meta.image_size == 32
    pixels = open_pixels(index, "val", meta.transform, assignment.setup.cache)
    with torch.inference_mode():
        predicted = model(normalise(pixels.images, meta.transform)).argmax(1)
    assert int((predicted == pixels.labels).sum()) / len(pixels.labels) == meta.value


def test_a_checkpoint_of_another_backbone_is_refused(assign: Assign, tmp_path: Path) -> None:
    finish(FineTuning(assign()))
    path = tmp_path / "trial/best/checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backbone": "mobilenet_v2"}))
    with pytest.raises(StorageError, match="must fit the backbone and the classes"):
        load_trained(tmp_path / "trial/best")


def test_the_confusion_matrix_of_the_best_epoch_is_kept(assign: Assign, tmp_path: Path) -> None:
    trial = FineTuning(assign())
    finish(trial)
    confusion = json.loads((tmp_path / "trial/best/confusion.json").read_text())
    assert (confusion["epoch"], confusion["classes"]) == (trial.best_epoch, ["blue", "green", "red"])
    assert [sum(row) for row in confusion["matrix"]] == [7, 7, 7], "a row for each true class"
    assert sum(confusion["matrix"][i][i] for i in range(3)) / 21 == trial.best_value
