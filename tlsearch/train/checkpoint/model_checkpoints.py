"""Model checkpoints: all that a prediction needs, in safetensors and JSON.

A checkpoint is a folder::

    checkpoint.json                     written last: the commit point; names its weights with their sha256
    weights-<epoch>-<hash>.safetensors  the tensors that training changes
    frozen-<hash>.safetensors           those that stand still, written once per trial; absent where none do
    confusion.json                      the confusion matrix of the epoch; may be absent

The trials of a search have what stands still in common: it lies in the search's folder ``frozen``, see
`tlsearch.train.checkpoint.frozen_part`, and a model that leaves the search has copies of those files in its own.

Beside the folder lies ``val_logits.safetensors``: what the epoch's model says about the validation images. It stays
where the model does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tlsearch.config.checkpoint_meta import META_FILE, ModelFile, ModelMeta, read_model_file
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.layout import VAL_LOGITS
from tlsearch.train.checkpoint.frozen_part import FrozenPart
from tlsearch.train.checkpoint.tensor_files import (
    TensorFacts,
    read_header,
    read_tensors,
    remove_others,
    replace_tensors,
    write_json,
    write_tensors,
)

MAX_LOGITS = 50_000_000  # values of a trial that are kept: 100 MB
CONFUSION_FILE = "confusion.json"  # for people and their programs: nothing here reads it

# What safetensors calls the kinds of tensors that models have.
_KINDS = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.bool: "BOOL",
    torch.uint8: "U8",
}


def save_confusion(directory: Path, *, epoch: int, classes: Sequence[str], matrix: Tensor) -> None:
    """Writes an epoch's confusion matrix into a checkpoint's folder, before the checkpoint itself is written.

    Args:
        matrix: Counts: a row for each true class, a column for each predicted one, in the order of ``classes``; of a
            multi-label task one of 2 x 2 for each class, by whether an image has it and whether the answer is yes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    content = {"epoch": epoch, "classes": list(classes), "matrix": matrix.tolist()}
    write_json(directory / CONFUSION_FILE, content, indent=None, last=False)


def half_logits(logits: Tensor) -> Tensor | None:
    """Logits (N, C) as they are kept: float16, clipped to its range; None where there are more than ``MAX_LOGITS``."""
    largest = torch.finfo(torch.float16).max
    return None if logits.numel() > MAX_LOGITS else logits.clamp(-largest, largest).half()


def save_val_logits(
    directory: Path, logits: Tensor, labels: Tensor, *, epoch: int, digest: str, folds: Tensor | None = None
) -> None:
    """Writes the validation logits of an epoch into a trial's folder, before the epoch's checkpoint is written.

    The file holds ``logits`` float16 (N, C) and ``labels`` int32 (N,), or uint8 (N, C) of a multi-label task, and of
    a trial with folds ``folds`` int32 (N,); its metadata are ``epoch`` and ``digest``.

    Args:
        logits: From ``half_logits``, in the order of the split.
        labels: Of the validation images: int64 (N,), or float32 (N, C) of 0 and 1.
        epoch: That of the report that they belong to: of a trial with folds the number of folds done.
        digest: Of labels and images, see ``tlsearch.data.split_digest``; of a trial with folds those of train and val
            together, however many of them its folds have held out so far.
        folds: int64 (N,): the fold, from 1, that has held out each image.
    """
    tensors = {"logits": logits, "labels": labels.to(torch.int32 if labels.dim() == 1 else torch.uint8)}
    if folds is not None:
        tensors["folds"] = folds.to(torch.int32)
    replace_tensors(directory / VAL_LOGITS, tensors, {"epoch": str(epoch), "digest": digest})


def save_model_checkpoint(
    directory: Path, *, state: Mapping[str, Tensor], meta: ModelMeta, frozen: FrozenPart | None = None
) -> None:
    """Replaces the checkpoint of a folder.

    Args:
        directory: Made if absent. Tensors of earlier checkpoints in it are deleted afterwards.
        state: The model's; those of ``frozen`` are not written again.
        frozen: From ``write_frozen_part`` for this folder, or from ``share_frozen_part`` for its search's.
    """
    names = frozen.names if frozen else frozenset()
    moving = {name: tensor for name, tensor in state.items() if name not in names}
    weights = write_tensors(directory, f"weights-{meta.epoch}", moving)
    crash_point("model_tensors")
    files = (weights, *(frozen.files if frozen else ()))
    write_json(directory / META_FILE, ModelFile(meta=meta, files=files).as_json())
    remove_others(directory, [file.name for file in files])


def read_model_meta(directory: Path) -> ModelMeta:
    """What a checkpoint says of itself, without its weights.

    Raises:
        StorageError: No checkpoint, or one that this version cannot read.
    """
    return read_model_file(directory).meta


def read_model_state(directory: Path, found: ModelFile, model: nn.Module) -> dict[str, Tensor]:
    """The full state of a checkpoint's model, on the CPU: whole, finite, and of the model's own tensors.

    Nothing is allocated for tensors of other names, shapes or kinds than those of the model.

    Args:
        model: As the checkpoint's; on the meta device it takes no memory.

    Raises:
        StorageError: Weights are missing or changed, are not those of the model, or are not finite.
    """
    expected = model.state_dict()
    headers = [read_header(directory, file) for file in found.files]
    _check_tensors(directory / META_FILE, {name: one for header in headers for name, one in header.items()}, expected)
    state: dict[str, Tensor] = {}
    for file in found.files:
        state.update(read_tensors(directory, file))
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise StorageError(f"the weights of a model must be finite; {name} is not: {directory}")
    return state


def _check_tensors(path: Path, header: Mapping[str, TensorFacts], expected: Mapping[str, Tensor]) -> None:
    own = {name: (_KINDS[tensor.dtype], tuple(tensor.shape)) for name, tensor in expected.items()}
    for name in sorted(own.keys() | header.keys()):
        if own.get(name) != header.get(name):
            raise StorageError(
                f"the weights must fit the backbone and the classes of {path}: {name} must be "
                f"{_described(own.get(name))}, and is {_described(header.get(name))}"
            )


def _described(facts: TensorFacts | None) -> str:
    return "absent" if facts is None else f"{facts[0]} of shape {list(facts[1])}"
