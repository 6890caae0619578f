"""Sixty classes with a long tail: class_balance and the macro metrics do what their names say."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn

from tlsearch.core.types import TrialConfig
from tlsearch.model import Part, StagedModel
from tlsearch.train import FeatureSource, Source, Trainer, evaluate, open_runtime, predict_logits

NUM_CLASSES, NUM_FEATURES = 60, 24
RUNTIME = open_runtime("cpu")


def rows_of(labels: Tensor, seed: int) -> Tensor:
    """Overlapping Gaussian classes."""
    centres = torch.randn(NUM_CLASSES, NUM_FEATURES, generator=torch.Generator().manual_seed(0))
    return centres[labels] + 1.3 * torch.randn(len(labels), NUM_FEATURES, generator=torch.Generator().manual_seed(seed))


def tail_labels(most: int) -> Tensor:
    counts = [max(2, round(most * 0.92**label)) for label in range(NUM_CLASSES)]
    return torch.repeat_interleave(torch.arange(NUM_CLASSES), torch.tensor(counts))


def source(labels: Tensor, seed: int) -> Source:
    return FeatureSource(reason="", rows=rows_of(labels, seed), labels=labels)


@lru_cache(maxsize=4)
def trained(class_balance: str) -> tuple[StagedModel, dict[str, float], dict[str, float]]:
    """A head after ten epochs, its metrics on a balanced set and on one with the training set's tail."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        stages = [Part(nn.Linear(NUM_FEATURES, NUM_FEATURES)) for _ in range(5)]
        model = StagedModel([*stages, Part(nn.Linear(NUM_FEATURES, NUM_CLASSES))], backbone="tiny", image_size=1)
    model.freeze(0, None)
    config = TrialConfig(backbone="tiny", head_lr=0.02, batch_size=64, class_balance=class_balance)
    trainer = Trainer(model, RUNTIME, config, depth=0, num_classes=NUM_CLASSES, max_epochs=10)
    train = source(tail_labels(300), 1)
    for epoch in range(1, 11):
        trainer.train_epoch(train, seed=0, epoch=epoch)
    balanced = evaluate(model, source(torch.arange(1800) % NUM_CLASSES, 2), RUNTIME, depth=0)
    tail = evaluate(model, source(tail_labels(100), 3), RUNTIME, depth=0)
    return model, balanced.metrics, tail.metrics


@pytest.mark.parametrize("class_balance", ["none", "weighted_loss", "sampler"])
def test_macro_metrics_equal_scikit_learns_on_the_tail(class_balance: str) -> None:
    model, _, tail = trained(class_balance)
    val = source(tail_labels(100), 3)
    predicted = predict_logits(model, val, RUNTIME, depth=0).argmax(1)
    assert tail["val_macro_f1"] == pytest.approx(
        sk.f1_score(val.labels, predicted, average="macro", zero_division=0), abs=1e-12
    )
    assert tail["val_balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(val.labels, predicted), abs=1e-12)
    assert tail["val_accuracy"] == sk.accuracy_score(val.labels, predicted)


@pytest.mark.parametrize("class_balance", ["weighted_loss", "sampler"])
def test_balancing_serves_the_rare_classes(class_balance: str) -> None:
    _, plain, plain_tail = trained("none")
    _, balanced, balanced_tail = trained(class_balance)
    assert balanced["val_macro_f1"] > plain["val_macro_f1"] + 0.03
    assert balanced["val_accuracy"] > plain["val_accuracy"] + 0.03
    assert balanced_tail["val_balanced_accuracy"] > plain_tail["val_balanced_accuracy"] + 0.03


def test_without_balancing_accuracy_looks_better_than_the_classes_do() -> None:
    _, _, tail = trained("none")
    assert tail["val_accuracy"] > tail["val_macro_f1"] + 0.1
    assert tail["val_top5_accuracy"] > tail["val_accuracy"]
