"""One real batch of a trial: forward, backward, step and an evaluation, without spending a trial."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from tlsearch.core.types import TrialAssignment
from tlsearch.data import ImageIndex, Split
from tlsearch.train import evaluate
from tlsearch.trial.process_cache import held_index
from tlsearch.trial.setup import open_trial


@dataclass(frozen=True, kw_only=True)
class FirstBatch:
    """What one batch showed; ``train_loss`` is measured before the step, ``val_loss`` after it."""

    num_images: int
    train_loss: float
    val_loss: float


def first_batch(assignment: TrialAssignment) -> FirstBatch:
    """Takes the first batch of a trial through forward, backward, optimiser step and evaluation.

    Nothing is written but a few images and features in the cache folder of the assignment: no folder of a trial, not
    even a file that says how far the packing is.

    Raises:
        UserError: Data, weights or settings break a rule.
        Diverged: The loss is not finite.
        Infeasible: The batch does not fit the device.
    """
    # two at least: batch norm cannot adapt to a single image
    index = _head(held_index(assignment.setup.data), max(2, assignment.config.batch_size))
    # The deepest a trial goes: progressive ones would show their first phase, the head alone.
    config = replace(assignment.config, unfreeze_schedule="at_once")
    opened = open_trial(replace(assignment, config=config), index=index)
    figures = opened.trainer.train_epoch(opened.train, seed=assignment.seed, epoch=1)
    evaluation = evaluate(opened.trainer.model, opened.val, opened.runtime, depth=opened.trainer.depth)
    return FirstBatch(num_images=len(opened.train), train_loss=figures.loss, val_loss=evaluation.metrics["val_loss"])


def _head(index: ImageIndex, num_images: int) -> ImageIndex:
    """The same data set with so many images of train and val, spread over the classes; no test images."""
    splits = {name: _spread(index.splits[name], num_images) for name in ("train", "val")}
    digest = hashlib.sha256(f"{index.digest} first {num_images}".encode()).hexdigest()
    return replace(index, splits=splits, digest=digest)


def _spread(split: Split, num_images: int) -> Split:
    step = max(1, len(split) // num_images)
    taken = slice(0, step * num_images, step)
    return Split(keys=split.keys[taken], labels=split.labels[taken], digests=split.digests[taken])
