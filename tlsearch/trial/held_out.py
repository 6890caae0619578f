"""The logits of a trial's validation images: whether they are kept, and those of images that folds hold out.

Each image of train and val is held out by one fold, whose training has not seen it. All folds are read at one common
epoch, which may be another one after each fold, so that those of all epochs are held until the trial ends. Its file has
those of the common epoch, and of the images that the folds done so far hold out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tlsearch.core.types import TrialAssignment
from tlsearch.data import split_digest
from tlsearch.train import MAX_LOGITS, save_val_logits
from tlsearch.trial.context import TrialContext
from tlsearch.trial.process_cache import held_folds

_log = logging.getLogger(__name__)

FoldLogits = Mapping[int, Tensor]  # of one fold by epoch, 0 before the first step: float16 (M, C)


def keeps_logits(context: TrialContext) -> bool:
    """Whether a trial keeps its validation logits; a warning where they are too many.

    Of a trial with folds those of all images and all epochs count, which its process holds.
    """
    setup, num_classes = context.setup, len(context.index.classes)
    num_images, epochs = len(context.index.splits["val"]), 1
    if setup.fold:
        num_images, epochs = len(context.index.kept("val").index.splits["train"]), setup.max_epochs + 1
    if num_images * num_classes * epochs <= MAX_LOGITS:
        return True
    if setup.fold <= 1:
        _log.warning(
            "the validation logits are not kept, so no ensemble can be chosen by them: %s images of %s classes%s are "
            "more than %s values",
            f"{num_images:,}",
            f"{num_classes:,}",
            f" at {epochs:,} epochs" if setup.fold else "",
            f"{MAX_LOGITS:,}",
        )
    return False


def keep_held_out(assignment: TrialAssignment, folds: Sequence[FoldLogits], epoch: int) -> None:
    """Replaces the trial's file by the logits of all images that its first folds hold out.

    Nothing is written where those of a fold are not known: they were too many, or an earlier version began it.

    Args:
        assignment: Of the trial as a whole.
        folds: Of each fold done.
        epoch: The common one.
    """
    if not all(epoch in fold for fold in folds):
        return
    setup = assignment.setup
    kept = [one.kept("val") for one in held_folds(setup.data, setup.folds, digest=setup.data_digest)[: len(folds)]]
    rows = torch.cat([torch.tensor(one.rows) for one in kept])
    numbers = torch.cat([torch.full((len(fold[epoch]),), number) for number, fold in enumerate(folds, start=1)])
    order = rows.argsort()
    pool = kept[0].index
    save_val_logits(
        Path(assignment.directory),
        torch.cat([fold[epoch] for fold in folds])[order],
        torch.from_numpy(pool.label_array("train"))[rows[order]],
        epoch=len(folds),
        digest=split_digest(pool.splits["train"]),
        folds=numbers[order],
    )


def named(folds: Sequence[FoldLogits]) -> dict[str, Tensor]:
    """All of them under names that ``unnamed`` reads."""
    return {f"{n}/{epoch}": logits for n, fold in enumerate(folds, start=1) for epoch, logits in fold.items()}


def unnamed(tensors: Mapping[str, Tensor], num_folds: int) -> tuple[FoldLogits, ...]:
    """The logits of each of the first folds.

    Raises:
        ValueError: A name is not of ``named``.
    """
    folds: list[dict[int, Tensor]] = [{} for _ in range(num_folds)]
    for name, logits in tensors.items():
        fold, epoch = map(int, name.split("/"))
        folds[fold - 1][epoch] = logits
    return tuple(folds)
