"""The new head: the only part of a model that is not pretrained."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from tlsearch.model.libraries.fast_init import forked_seed
from tlsearch.model.staging.staged import Part, StagedModel

CLASSIFIER = "classifier"


def replace_head(model: StagedModel, *, num_classes: int, seed: int, dropout: float | None = None) -> None:
    """Puts a new linear layer where the model's last classifier layer was.

    It is initialised as torch initialises ``nn.Linear`` (weight and bias uniform in +-1/sqrt(features)), drawn from
    ``seed`` alone. Without a bias where the original has none (MaxViT). A convolution before a pool (SqueezeNet) is
    replaced by pool, flatten and a linear layer: a ReLU on new logits can die, and nothing pooled could be cached.

    Args:
        model: The model to change.
        num_classes: Outputs of the new layer, at least 1.
        seed: Of the initialisation; the global generator is left as it was.
        dropout: Rate of the dropout that opens the head; None keeps the model's own.
    """
    children = list(model.head.children())
    position, last = next(
        (i, m) for i, m in reversed(list(enumerate(children))) if isinstance(m, nn.Linear | nn.Conv2d)
    )
    own_rate = next((m.p for m in children[:position] if isinstance(m, nn.Dropout)), 0.0)
    rate = own_rate if dropout is None else dropout
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if rate > 0:
        # Never in place: on a slice of a read-only feature map an in-place dropout crashes the process.
        modules["dropout"] = nn.Dropout(rate)
    if isinstance(last, nn.Conv2d):
        modules["pool"] = nn.AdaptiveAvgPool2d(1)
        modules["flatten"] = nn.Flatten(1)
        num_features = last.in_channels
    else:
        num_features = last.in_features
    device = torch.device("meta") if last.weight.is_meta else None
    with forked_seed(seed):
        modules[CLASSIFIER] = nn.Linear(num_features, num_classes, bias=last.bias is not None, device=device)
    model.head = Part(modules).train(model.training)
