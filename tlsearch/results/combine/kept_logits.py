"""The logits on the validation images that every trial keeps: read from a search's folder, in numpy alone.

A trial keeps those of its best epoch, also where its model is gone. Any question about combinations of trials is
answered from them without a model. A trial with folds keeps those of the images of train and val that its folds have
held out, each by the model that has not seen it: trials are compared on images that all of them have held out.

T trials; N validation images, in the order of the index; C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.layout import SearchFolder
from tlsearch.core.types import SearchRecord, TrialRecord

if TYPE_CHECKING:
    from tlsearch.data import ImageIndex

_log = logging.getLogger(__name__)

MAX_VALUES = 200_000_000  # that are read at a time: 1.6 GB
_FILE_BYTES = 1 << 30

Logits = NDArray[np.float64]
Labels = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class KeptTrial:
    """What one trial has kept.

    Attributes:
        logits: float16 (N, C), clipped to its range.
        labels: int64 (N,), or float32 (N, C) of 0 and 1.
        epoch: Of the model, 0 for the solved head before the first step; with folds the number of folds done.
        digest: Of the labels and the images, see ``tlsearch.data.split_digest``; with folds of train and val together.
        folds: int (N,): the fold, from 1, that has held out each image; None without folds.
    """

    logits: NDArray[np.float16]
    labels: Labels
    epoch: int
    digest: str
    folds: NDArray[np.int32] | None = None

    @property
    def num_folds(self) -> int:
        """How many folds were done, the first ones; 0 without folds."""
        return 0 if self.folds is None else self.epoch

    def of_folds(self, count: int) -> KeptTrial | None:
        """On the images alone that the first folds hold out; None where fewer were done. 0 stands for no folds."""
        if self.folds is None or self.num_folds <= count:
            return self if self.num_folds == count else None
        rows = self.folds <= count
        return replace(self, logits=self.logits[rows], labels=self.labels[rows], folds=self.folds[rows], epoch=count)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the trials of a search have kept.

    Attributes:
        trials: Numbers of the T trials, the best first.
        logits: float64 (T, N, C).
        labels: int64 (N,), or float32 (N, C) of 0 and 1.
        missing: Trials with a result and without logits of their best epoch on these images: of a search of an earlier
            version, or with more images and classes than are kept.
        partial: Trials with folds that were stopped earlier than the best: they have held out fewer images.
        left_out: The worst trials, beyond the 200 million values that are read at a time.
    """

    trials: tuple[int, ...]
    logits: Logits
    labels: Labels
    missing: tuple[int, ...] = ()
    partial: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()


def read_kept(root: Path, record: SearchRecord, index: ImageIndex | None = None) -> Kept:
    """The kept logits of all trials with a result.

    Args:
        root: The search's folder.
        record: The search.
        index: Its data as they are now: logits of other images are missing. Without it, all must be of the images
            that the best trial with logits was evaluated on.
    """
    labels = np.zeros(0, dtype=np.int64)
    ranked = [trial.number for trial in record.ranked]
    found: dict[int, NDArray[np.float16]] = {}
    left_out: tuple[int, ...] = ()
    num_folds = 0
    for number, kept in each_kept(root, record, "" if index is None else kept_digest(record, index)):
        if found and (len(found) + 1) * kept.logits.size > MAX_VALUES:
            left_out = tuple(ranked[ranked.index(number) :])
            break
        found[number], labels = kept.logits, kept.labels
        num_folds = kept.num_folds
    partial = tuple(trial.number for trial in record.ranked if trial.folds and trial.epochs_run < num_folds)
    return Kept(
        trials=tuple(found),
        logits=np.array(list(found.values()), dtype=np.float64) if found else np.zeros((0, len(labels), 0)),
        labels=labels,
        missing=tuple(number for number in ranked if number not in {*found, *left_out, *partial}),
        partial=partial,
        left_out=left_out,
    )


def kept_digest(record: SearchRecord, index: ImageIndex) -> str:
    """What the logits of a search's trials have as their digest where they are of these images."""
    from tlsearch.data import split_digest, with_val_in_train

    folds = any(trial.folds for trial in record.trials)
    return split_digest(with_val_in_train(index).splits["train"] if folds else index.splits["val"])


def each_kept(
    root: Path, record: SearchRecord, digest: str = "", *, num_folds: int = 0
) -> Iterator[tuple[int, KeptTrial]]:
    """What each trial with a result has kept, one after the other, the best first; trials without are left out.

    Args:
        digest: See ``kept_digest``; where empty, that of the first trial that has logits.
        num_folds: Of trials with folds: only those that have done this number, on the images of these folds alone.
            0 is the number of the first trial that has logits.
    """
    shape: tuple[int, ...] = ()
    for trial in record.ranked:
        whole = read_trial(root, trial)
        if whole is None or whole.digest != (digest or whole.digest):
            continue
        kept = whole.of_folds(num_folds or whole.num_folds)
        if kept is None or kept.logits.shape != (shape or kept.logits.shape):
            continue
        digest, shape = kept.digest, kept.logits.shape
        num_folds = num_folds or kept.num_folds
        yield trial.number, kept


def read_trial(root: Path, trial: TrialRecord) -> KeptTrial | None:
    """What one trial has kept; None where its file does not exist, is damaged, or is not of the best epoch."""
    return _read(SearchFolder(root=root).val_logits(trial.number), trial)


def _read(path: Path, trial: TrialRecord) -> KeptTrial | None:
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > _FILE_BYTES:
            raise ValueError(f"it has more than {_FILE_BYTES:,} bytes")
        with safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("epoch") != str(trial.best_epoch):
                return None
            logits, labels = opened.get_tensor("logits"), opened.get_tensor("labels")
            labels = labels.astype(np.int64 if labels.ndim == 1 else np.float32)
            folds = opened.get_tensor("folds") if trial.folds else None
        epoch, digest = int(metadata["epoch"]), metadata.get("digest", "")
        kept = KeptTrial(logits=logits, labels=labels, epoch=epoch, digest=digest, folds=folds)
        _check(kept)
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        _log.warning("the validation logits of trial %d cannot be used: %s: %s", trial.number, path, error)
        return None
    return kept


def _check(kept: KeptTrial) -> None:
    logits, labels, folds = kept.logits, kept.labels, kept.folds
    fits = labels.ndim in (1, 2) and labels.shape == logits.shape[: labels.ndim]
    if logits.dtype != np.float16 or logits.ndim != 2 or not fits or not logits.size:
        raise ValueError(f"logits must be float16 (N, C) with N labels, not {logits.dtype} {logits.shape}")
    limit = logits.shape[1] if labels.ndim == 1 else 2
    if labels.min() < 0 or labels.max() >= limit:
        raise ValueError(f"labels must be in [0, {limit})")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    if folds is not None and (folds.shape != logits.shape[:1] or {*folds.tolist()} != {*range(1, kept.epoch + 1)}):
        raise ValueError(f"each image must be of one of {kept.epoch} folds, and each of these must have one")
