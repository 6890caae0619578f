"""A small search whose trials fine-tune one backbone from one start, so that their weights can be averaged."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from small_search import small_search

from tlsearch.app.catalog.catalog import SearchEntry

BACKBONE = "mobilenet_v3_small"

SPACE = """
name: soup
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: ./weights.pth}
space:
  backbone: mobilenet_v3_small
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-5, 1.0e-1]}
  backbone_lr: {log: [1.0e-5, 1.0e-1]}
  bn_policy: [frozen, train]
search:
  trials: 5
  max_epochs: 2
  scheduler: none
  metric: val_loss
  sampler: fixed
  start_with:
    - {unfreeze_depth: 1, head_lr: 3.0e-3, backbone_lr: 3.0e-3, bn_policy: frozen}
    - {unfreeze_depth: 2, head_lr: 3.0e-3, backbone_lr: 1.0e-3, bn_policy: train}
    - {unfreeze_depth: 1, head_lr: 1.0e-3, backbone_lr: 1.0e-3, bn_policy: train}
    - {unfreeze_depth: 0, head_lr: 3.0e-3}
    - {unfreeze_depth: 2, head_lr: 1.0e-2, backbone_lr: 3.0e-4, bn_policy: frozen}
"""


def write_weights(path: Path) -> None:
    """Random weights whose statistics of batch norm fit them, so that training may go on from there."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        model = torchvision.models.get_model(BACKBONE, num_classes=3).train()
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # the mean of all batches
        for _ in range(4):
            model(torch.randn(64, 3, 32, 32))
        torch.save(model.state_dict(), path)


def soup_search(root: Path, *, name: str = "soup", space: str = SPACE) -> SearchEntry:
    """Five trials, all kept."""
    write_weights(root / "weights.pth")
    return small_search(root, name=name, counts={"train": 8, "val": 12, "test": 4}, space=space)
