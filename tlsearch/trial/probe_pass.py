"""Backbones without a training: what a head would see of them, and what a solved head reaches on it.

A pass over the images is all that it takes, and where it is over all of them its features are those that trials of the
backbone read from the node's cache afterwards.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from tlsearch.core.types import TrialAssignment, TrialConfig
from tlsearch.data import ImageIndex
from tlsearch.train import in_batches, release_memory, solve_layer, spectrum_of
from tlsearch.trial.process_cache import held_index
from tlsearch.trial.setup import open_trial

PROBE_VERSION = 1  # counts up when the results of a probe change
NUM_TRAIN, NUM_VAL = 2000, 2000  # images of a probe, at most; of a standard error of 1.1 points, at worst
_PER_CLASS = 10  # of the training images, where that makes more
_PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A solved head on the frozen features of a backbone.

    Attributes:
        hits: bool (N,), which of the N validation images it gets right.
        num_train: Images that it was fitted to.
        penalty: Of ridge regression, chosen by the cross-entropy on the validation images.
        seconds: Of the pass and the fits.
    """

    hits: Tensor
    num_train: int
    penalty: float
    seconds: float


def probe_backbone(assignment: TrialAssignment) -> Probed:
    """Fits ridge heads to the frozen features of training images, and scores them on validation images.

    Args:
        assignment: Its backbone, image size and features count; nothing is written into its folder.

    Raises:
        UserError: Data, weights or settings break a rule.
        Infeasible: The model does not fit the device.
    """
    began, setup = time.perf_counter(), assignment.setup
    index = probed_images(held_index(setup.data, digest=setup.data_digest))
    num_classes = len(index.classes)
    features = frozen_features(assignment, index)
    labels = {split: torch.tensor(index.splits[split].labels, dtype=torch.int64) for split in features}
    spectrum = spectrum_of(features["train"], labels["train"], num_classes=num_classes)
    best: tuple[float, float, Tensor] | None = None
    for penalty in _PENALTIES:
        layer = solve_layer(spectrum, "ridge", penalty)
        scores = F.linear(features["val"], layer.weight, layer.bias)
        loss = float(F.cross_entropy(scores, labels["val"]))
        if best is None or loss < best[0]:
            best = loss, penalty, scores.argmax(1) == labels["val"]
    assert best is not None, "there are penalties"
    seconds = time.perf_counter() - began
    return Probed(hits=best[2], num_train=len(labels["train"]), penalty=best[1], seconds=seconds)


def probed_images(index: ImageIndex) -> ImageIndex:
    """The images of a probe: all of train and val where they are few, else a part that is spread over the classes."""
    most = {"train": max(NUM_TRAIN, _PER_CLASS * len(index.classes)), "val": NUM_VAL}
    return sample_of(index, most)


def sample_of(index: ImageIndex, most: Mapping[str, int]) -> ImageIndex:
    """The same data set with at most these numbers of images by split, spread over the classes, and no other splits.

    Returns:
        The data set itself where all its images are taken.
    """
    if all(len(index.splits[name]) <= count for name, count in most.items()):
        return index
    splits = {}
    for name, count in most.items():
        split = index.splits[name]
        taken = min(count, len(split))
        splits[name] = split.part([place * len(split) // taken for place in range(taken)])
    counts = {name: len(split) for name, split in splits.items()}
    digest = hashlib.sha256(f"{index.digest} sample {counts}".encode()).hexdigest()
    return replace(index, splits=splits, digest=digest)


def frozen_features(assignment: TrialAssignment, index: ImageIndex | None = None) -> Mapping[str, Tensor]:
    """What the head of a pretrained backbone sees of train and val: float32 (N, F) on the CPU, in the index's order.

    Read from the node's cache, which holds them wherever a trial's head was solved; else computed and stored there.

    Args:
        assignment: Its backbone, image size and features count; nothing is written into its folder.
        index: In place of the data set's whole index.

    Raises:
        UserError: Data, weights or settings break a rule.
        Infeasible: The model does not fit the device.
    """
    own = assignment.config
    config = TrialConfig(backbone=own.backbone, image_size=own.image_size, features=own.features, head_init="random")
    opened = open_trial(replace(assignment, config=config), index=index)
    model, runtime, found = opened.model, opened.runtime, dict[str, Tensor]()
    model.eval()
    try:
        for split, source in (("train", opened.train), ("val", opened.val)):
            inputs = partial(model.features_of, depth=0, from_pixels=source.kind == "pixels")
            rows = torch.cat([part.float().cpu() for part in in_batches(source, runtime, inputs)])
            found[split] = rows.flatten(1)
    finally:
        release_memory(runtime)
    return found
