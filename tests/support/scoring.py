"""How a loaded model does on a split, for tests that compare it with what a trial reported."""

from __future__ import annotations

import torch

from tlsearch.data import ImageIndex
from tlsearch.results import Classifier, logits_on


def accuracy_on(model: Classifier, index: ImageIndex, split: str) -> float:
    """The fraction of a split's images that the model gets right."""
    right = logits_on(model, index, split).argmax(1) == torch.tensor(index.splits[split].labels)
    return right.double().mean().item()
