"""Classification metrics from logits, equal to scikit-learn's.

N images, C classes; accuracies are fractions in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.types import TOP5_MIN_CLASSES


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts by (true class, predicted class): int64 (C, C)."""
    cells = labels * num_classes + predicted
    return torch.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def macro_f1(confusion: Tensor) -> float:
    """Mean F1 over the classes that occur as a label or as a prediction.

    Equal to ``sklearn.metrics.f1_score(average="macro", zero_division=0)``.
    """
    hits = confusion.diagonal().double()
    occurrences = (confusion.sum(0) + confusion.sum(1)).double()
    present = occurrences > 0
    return float((2 * hits[present] / occurrences[present]).mean())


def balanced_accuracy(confusion: Tensor) -> float:
    """Mean recall over the classes that occur as a label; as ``balanced_accuracy_score``."""
    support = confusion.sum(1).double()
    present = support > 0
    return float((confusion.diagonal().double()[present] / support[present]).mean())


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """All validation metrics of one pass.

    Args:
        logits: float (N, C).
        labels: int64 (N,), each in [0, C).

    Returns:
        val_loss, val_accuracy, val_macro_f1, val_balanced_accuracy, and with ten classes or more
        val_top5_accuracy. val_loss is not finite where a logit is not.
    """
    num_classes = logits.shape[1]
    logits = logits.float()
    predicted = logits.argmax(1)
    confusion = confusion_matrix(predicted, labels, num_classes)
    metrics = {
        "val_loss": float(F.cross_entropy(logits, labels)),
        "val_accuracy": int((predicted == labels).sum()) / len(labels),
        "val_macro_f1": macro_f1(confusion),
        "val_balanced_accuracy": balanced_accuracy(confusion),
    }
    if num_classes >= TOP5_MIN_CLASSES:
        top = logits.topk(5, dim=1).indices
        metrics["val_top5_accuracy"] = int((top == labels[:, None]).any(1).sum()) / len(labels)
    return metrics
