"""The logits on the validation images that every trial keeps: read from a search's folder, in numpy alone.

A trial keeps those of its best epoch, also where its model is gone. Any question about combinations of trials is
answered from them without a model.

T trials; N validation images, in the order of the index; C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
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
        epoch: Of the model, 0 for the solved head before the first step.
        digest: Of the labels and the images, see ``tlsearch.data.split_digest``.
    """

    logits: NDArray[np.float16]
    labels: Labels
    epoch: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the trials of a search have kept.

    Attributes:
        trials: Numbers of the T trials, the best first.
        logits: float64 (T, N, C).
        labels: int64 (N,), or float32 (N, C) of 0 and 1.
        missing: Trials with a result and without logits of their best epoch on these images: of a search of an earlier
            version, or with more images and classes than are kept.
        left_out: The worst trials, beyond the 200 million values that are read at a time.
    """

    trials: tuple[int, ...]
    logits: Logits
    labels: Labels
    missing: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()


def read_kept(root: Path, record: SearchRecord, index: ImageIndex | None = None) -> Kept:
    """The kept logits of all trials with a result.

    Args:
        root: The search's folder.
        record: The search.
        index: Its data as they are now: logits of other images are missing. Without it, all must be of the images
            that the best trial with logits was evaluated on.
    """
    if index is None:
        digest, labels = "", np.zeros(0, dtype=np.int64)
    else:
        from tlsearch.data import split_digest

        digest, labels = split_digest(index.splits["val"]), index.label_array("val")
    ranked = [trial.number for trial in record.ranked]
    found: dict[int, NDArray[np.float16]] = {}
    left_out: tuple[int, ...] = ()
    for number, kept in each_kept(root, record, digest):
        if found and (len(found) + 1) * kept.logits.size > MAX_VALUES:
            left_out = tuple(ranked[ranked.index(number) :])
            break
        found[number], labels = kept.logits, kept.labels
    return Kept(
        trials=tuple(found),
        logits=np.array(list(found.values()), dtype=np.float64) if found else np.zeros((0, len(labels), 0)),
        labels=labels,
        missing=tuple(number for number in ranked if number not in found and number not in left_out),
        left_out=left_out,
    )


def each_kept(root: Path, record: SearchRecord, digest: str = "") -> Iterator[tuple[int, KeptTrial]]:
    """What each trial with a result has kept, one after the other, the best first; trials without are left out.

    Args:
        digest: Of labels and images; where empty, that of the first trial that has logits.
    """
    folder, shape = SearchFolder(root=root), None
    for trial in record.ranked:
        kept = _read(folder.val_logits(trial.number), trial)
        if kept is None or kept.digest != (digest or kept.digest) or kept.logits.shape != (shape or kept.logits.shape):
            continue
        digest, shape = kept.digest, kept.logits.shape
        yield trial.number, kept


def _read(path: Path, trial: TrialRecord) -> KeptTrial | None:
    """What a trial's file holds; None where it does not exist, is damaged, or is not of the best epoch."""
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
        kept = KeptTrial(logits=logits, labels=labels, epoch=int(metadata["epoch"]), digest=metadata.get("digest", ""))
        _check(kept)
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        _log.warning("the validation logits of trial %d cannot be used: %s: %s", trial.number, path, error)
        return None
    return kept


def _check(kept: KeptTrial) -> None:
    logits, labels = kept.logits, kept.labels
    fits = labels.ndim in (1, 2) and labels.shape == logits.shape[: labels.ndim]
    if logits.dtype != np.float16 or logits.ndim != 2 or not fits or not logits.size:
        raise ValueError(f"logits must be float16 (N, C) with N labels, not {logits.dtype} {logits.shape}")
    limit = logits.shape[1] if labels.ndim == 1 else 2
    if labels.min() < 0 or labels.max() >= limit:
        raise ValueError(f"labels must be in [0, {limit})")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
