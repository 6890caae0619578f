"""Trials on images with any number of classes: learned, kept with thresholds, the same with cached features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from several_labels import TINTS, write_tints
from sklearn.metrics import average_precision_score
from torch import nn

from tlsearch.core.errors import StorageError
from tlsearch.core.label_tasks import TASKS
from tlsearch.core.layout import VAL_LOGITS
from tlsearch.core.types import DataSpec, Decision, TrialAssignment
from tlsearch.train import read_json, read_model_meta, write_json
from tlsearch.train.loop.batches import epoch_order, load_batch
from tlsearch.trial import FineTuning, FoldTraining, load_trained, run_trial
from tlsearch.trial.setup import OpenTrial, open_trial

Assign = Callable[..., TrialAssignment]
TASK = TASKS["multi_label"]
SEED, BACKBONE_LR = 5, 0.03


class Listener:
    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def report(self, report: Any) -> Decision:
        self.metrics.append(dict(report.metrics))
        return Decision.CONTINUE


@pytest.fixture
def several(assign: Assign, tmp_path: Path) -> Assign:
    """Assignments on images with any number of tints."""
    table = write_tints(tmp_path / "tints", counts={"train": 32, "val": 24})

    def build(directory: str = "trial", *, setup: dict[str, Any] | None = None, **more: Any) -> TrialAssignment:
        data = DataSpec(source="manifest", path=str(table), image_size=32, task="multi_label")
        return assign(directory, setup={"data": data, "metric": "val_map"} | (setup or {}), **more)

    return build


def test_a_trial_learns_and_its_model_carries_thresholds(several: Assign, tmp_path: Path) -> None:
    listener = Listener()
    outcome = run_trial(several(depth=2, policy="train", head_init="probe", setup={"max_epochs": 4}), listener)
    assert outcome.error == "" and outcome.best_value is not None and outcome.best_value > 0.75
    assert set(TASK.metrics) <= listener.metrics[0].keys() and "val_accuracy" not in listener.metrics[0]
    model, meta = load_trained(tmp_path / "trial" / "best")
    assert meta.task == "multi_label" and meta.classes == TINTS and len(meta.thresholds) == 3
    assert meta.value == outcome.best_value == pytest.approx(meta.metrics["val_map"])
    kept = load_file(tmp_path / "trial" / VAL_LOGITS)
    assert kept["labels"].dtype == torch.uint8 and kept["labels"].shape == kept["logits"].shape == (24, 3)
    scores, labels = kept["logits"].double().numpy(), kept["labels"].float().numpy()
    assert TASK.metrics["val_map"].value(scores, labels) == pytest.approx(meta.value, abs=2e-3)
    np.testing.assert_allclose(meta.thresholds, TASK.thresholds(scores, labels), atol=2e-3)
    matrix = read_json(tmp_path / "trial" / "best" / "confusion.json", "counts")["matrix"]
    assert np.array(matrix).shape == (3, 2, 2) and np.array(matrix).sum() == 3 * 24


@pytest.mark.parametrize(
    "changes",
    [
        {"head_init": "random"},
        {"head_init": "probe", "class_balance": "weighted_loss", "label_smoothing": 0.1},
        {"depth": 1, "head_init": "random", "optimizer": "sgd"},
    ],
)
def test_cached_features_give_the_same_metrics(several: Assign, changes: dict[str, Any]) -> None:
    found = []
    for stored in (True, False):
        listener = Listener()
        run_trial(several(f"stored-{stored}", stored=stored, **changes), listener)
        found.append([{name: one[name] for name in (*TASK.metrics, "train_loss")} for one in listener.metrics])
    for cached, plain in zip(*found, strict=True):
        assert cached == pytest.approx(plain, rel=1e-3, abs=1e-4)


def plain_loop(opened: OpenTrial, net: nn.Module, *, epochs: int) -> list[float]:
    """A loop as in torch's tutorials, in the trial's order: the mAP on val after each epoch, by scikit-learn."""
    rows, labels = load_batch(opened.train, slice(None), opened.runtime)
    val_rows, val_labels = load_batch(opened.val, slice(None), opened.runtime)
    config, loss, found = opened.context.config, nn.BCEWithLogitsLoss(), []
    backbone = {"params": [p for part in opened.model.parts[:-1] for p in part.parameters()], "lr": BACKBONE_LR}
    head = {"params": opened.model.head.parameters(), "lr": config.head_lr}
    groups = [head] if config.unfreeze_depth == 0 else [head, backbone]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    for epoch in range(1, epochs + 1):
        net.train()
        for batch in epoch_order(len(rows), SEED, epoch).split(config.batch_size):
            optimizer.zero_grad()
            torch.autograd.backward(loss(net(rows[batch]), labels[batch]))
            optimizer.step()
        net.eval()
        with torch.inference_mode():
            found.append(float(average_precision_score(val_labels, net(val_rows))))
    return found


@pytest.mark.parametrize("depth", [0, 5])
def test_a_plain_loop_reaches_the_same_map(several: Assign, depth: int) -> None:
    """The head alone, by its own gradients on cached features, and everything, through autograd from pixels.

    By SGD: AdamW divides by a gradient's size, so that it makes whole steps of what is rounding.
    """
    more: dict[str, Any] = {}
    if depth:
        pytest.importorskip("timm")
        more = {"backbone": "timm/test_vit3", "policy": None, "backbone_lr": BACKBONE_LR}
    more |= {"optimizer": "sgd", "head_lr": 0.1, "weight_decay": 0.0, "head_init": "random", "head_dropout": 0.0}
    more["seed"] = SEED
    listener = Listener()
    assert run_trial(several(depth=depth, **more), listener).error == ""
    opened = open_trial(several("plain", depth=depth, **more))
    assert opened.train.kind == ("pixels" if depth else "features")
    plain = plain_loop(opened, opened.model if depth else opened.model.head, epochs=len(listener.metrics))
    assert [one["val_map"] for one in listener.metrics] == pytest.approx(plain, abs=1e-6)
    assert len(set(plain)) > 1, "nothing is learned here, so that nothing is compared"


@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_solved_heads(several: Assign, tmp_path: Path, head: str) -> None:
    outcome = run_trial(several(head=head, head_penalty=0.01), Listener())
    assert outcome.error == "" and outcome.best_value is not None and outcome.best_value > 0.6
    assert len(read_model_meta(tmp_path / "trial" / "best").thresholds) == 3


def test_mixing_and_augmentation_train(several: Assign) -> None:
    outcome = run_trial(several(depth=1, mixup=0.2, cutmix=0.5, augmentation="light", ema=0.5), Listener())
    assert outcome.error == "" and outcome.best_value is not None


def test_a_trial_goes_on_where_it_was_killed(several: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlsearch.trial.finetuning.RUNNING_INTERVAL_S", 0.0)
    whole, resumed = Listener(), Listener()
    run_trial(several("whole", depth=1, policy="train"), whole)
    FineTuning(several("cut", depth=1, policy="train")).step()  # never closed, as a killed worker
    run_trial(several("cut", depth=1, policy="train"), resumed)
    assert resumed.metrics[-1]["val_map"] == whole.metrics[-1]["val_map"]
    assert resumed.metrics[-1]["train_loss"] == whole.metrics[-1]["train_loss"]


def test_folds_are_stratified_and_averaged(several: Assign) -> None:
    training = FoldTraining(several(setup={"folds": 2, "max_epochs": 1}))
    first, second = training.step(), training.step()
    own = first.metrics["val_map"], second.metrics["fold_val_map"]
    assert second.metrics["val_map"] == pytest.approx(np.mean(own))


def test_thresholds_are_checked_when_a_model_is_read(several: Assign, tmp_path: Path) -> None:
    run_trial(several(setup={"max_epochs": 1}), Listener())
    path = tmp_path / "trial" / "best" / "checkpoint.json"
    content = read_json(path, "a checkpoint")
    for wrong in ([0.5], [0.5, 0.5, 1.5], [], "half"):
        write_json(path, {**content, "thresholds": wrong})
        with pytest.raises(StorageError, match="thresholds"):
            read_model_meta(path.parent)
    write_json(path, {**content, "task": "single_label"})
    with pytest.raises(StorageError, match="thresholds must hold a number for each class of a multi_label task"):
        read_model_meta(path.parent)


def test_a_refit_takes_both_splits(several: Assign, tmp_path: Path) -> None:
    assignment = several(head_init="probe")
    outcome = run_trial(replace(assignment, setup=replace(assignment.setup, refit=True)), Listener())
    assert outcome.error == "" and (tmp_path / "trial" / "best" / "checkpoint.json").is_file()
