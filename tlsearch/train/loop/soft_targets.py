"""The probabilities that a teacher gives the training images: what its student learns in place of the labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015). One safetensors file holds them for
every fixed view of the images (see ``view_of``), since a teacher sees the pixels that its student sees. N images,
C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from tlsearch.core.errors import StorageError
from tlsearch.train.checkpoint.tensor_files import replace_tensors
from tlsearch.train.loop.loss import loss_of

LABEL_SHARE = 0.5  # of a target; the teacher has the rest, as it has seen these images and is too sure of them


def mixed_with_labels(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Targets float32 (N, C): the teacher's probabilities (N, C) and the labels in fixed shares.

    Args:
        labels: As the data have them.
    """
    hard = loss_of(labels).one_hot(labels, probabilities.shape[1]).to(probabilities.dtype)
    return (LABEL_SHARE * hard + (1 - LABEL_SHARE) * probabilities).float()


def write_soft_targets(path: Path, targets: Mapping[int, Tensor], *, made_from: str) -> None:
    """Replaces the file, whole or not at all.

    Args:
        targets: float32 (N, C) by view, from 1; 0 stands for the images without augmentation.
        made_from: What the targets depend on: ``holds_soft_targets`` compares it.
    """
    replace_tensors(path, {_name(view): rows for view, rows in targets.items()}, {"made_from": made_from})


def holds_soft_targets(path: Path, made_from: str) -> bool:
    """Whether the file is there and was made from just this; one that is damaged is not."""
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get("made_from") == made_from
    except (OSError, safetensors.SafetensorError):
        return False


def read_soft_targets(path: Path, view: int, shape: tuple[int, int]) -> Tensor:
    """The targets of one view: float32 (N, C).

    Args:
        shape: (N, C) as the data have it.

    Raises:
        StorageError: The file is missing or damaged, lacks the view, or is of other data.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            rows: Tensor = opened.get_tensor(_name(view))
    except (OSError, safetensors.SafetensorError) as error:
        raise StorageError(f"soft targets must be safetensors with the view {view}: {path}: {error}") from error
    if tuple(rows.shape) != shape or rows.dtype != torch.float32 or not bool(torch.isfinite(rows).all()):
        raise StorageError(
            f"soft targets must be finite float32 of shape {list(shape)}, not {rows.dtype} of {list(rows.shape)}: "
            f"{path}"
        )
    return rows


def _name(view: int) -> str:
    return f"view-{view}"
