"""Model checkpoints: all that a prediction needs, in safetensors and JSON.

A checkpoint is a folder::

    checkpoint.json                     written last: the commit point; names its weights with their sha256
    weights-<epoch>-<hash>.safetensors  the tensors that training changes
    frozen-<hash>.safetensors           those that stand still, written once per trial; may be absent
    confusion.json                      the confusion matrix of the epoch; may be absent
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import tlsearch
from tlsearch.errors import StorageError
from tlsearch.train.files import (
    TensorFile,
    plain_name,
    read_json,
    read_tensors,
    remove_others,
    write_json,
    write_tensors,
)
from tlsearch.types import MAX_PIXELS, TransformSpec, TrialConfig

FORMAT = 1
META_FILE = "checkpoint.json"
CONFUSION_FILE = "confusion.json"


@dataclass(frozen=True, kw_only=True)
class ModelMeta:
    """What a model checkpoint says of itself.

    Attributes:
        classes: In the order of the logits.
        transform: The evaluation transform that belongs to the model.
        image_size: Side of the model's square input, in pixels.
        epoch: The epoch, from 1, whose weights these are; 0 for the solved head before the first step.
        metric: The search's metric; ``value`` is its value at that epoch.
        metrics: All metrics of that epoch.
        max_pixels: The most pixels that an image may have, as in the search's data.
        temperature: What logits are divided by before the softmax; 1 until a calibration has set it.
    """

    backbone: str
    classes: tuple[str, ...]
    weights_id: str
    weights_digest: str
    transform: TransformSpec
    image_size: int
    config: TrialConfig
    epoch: int
    metric: str
    value: float
    metrics: Mapping[str, float]
    max_pixels: int = MAX_PIXELS
    temperature: float = 1.0
    tlsearch_version: str = tlsearch.__version__

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The index of each class's logit."""
        return {name: index for index, name in enumerate(self.classes)}


@dataclass(frozen=True, kw_only=True)
class FrozenPart:
    """The file with a trial's unchanging tensors, as ``write_frozen_part`` left it."""

    file: TensorFile
    names: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ModelCheckpoint:
    """A checkpoint in memory; ``state`` is the model's full state, on the CPU."""

    meta: ModelMeta
    state: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """The confusion matrix of an epoch's validation.

    Attributes:
        matrix: Counts: a row for each true class, a column for each predicted one, in the order of ``classes``.
    """

    epoch: int
    classes: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


def save_confusion(directory: Path, confusion: Confusion) -> None:
    """Writes the matrix into a checkpoint's folder; call it before the checkpoint itself is written."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / CONFUSION_FILE, dataclasses.asdict(confusion), indent=None)


def read_confusion(directory: Path) -> Confusion | None:
    """The confusion matrix of a checkpoint; None where there is none of its epoch.

    Raises:
        StorageError: No checkpoint, or one that this version cannot read.
    """
    meta = read_model_meta(directory)
    try:
        content = read_json(directory / CONFUSION_FILE, "a confusion matrix")
        matrix = tuple(tuple(int(count) for count in row) for row in content["matrix"])
        found = Confusion(epoch=content["epoch"], classes=tuple(content["classes"]), matrix=matrix)
    except (StorageError, KeyError, TypeError, ValueError):
        return None
    # A writer that was killed between the two files leaves the matrix of another epoch.
    return found if (found.epoch, found.classes) == (meta.epoch, meta.classes) else None


def write_frozen_part(directory: Path, tensors: Mapping[str, Tensor]) -> FrozenPart:
    """Writes the tensors that training leaves alone, so that each new best epoch writes the others only."""
    return FrozenPart(file=write_tensors(directory, "frozen", tensors), names=frozenset(tensors))


def save_model_checkpoint(
    directory: Path, *, model: nn.Module, meta: ModelMeta, frozen: FrozenPart | None = None
) -> None:
    """Replaces the checkpoint of a folder.

    Args:
        directory: Made if absent. Tensors of earlier checkpoints in it are deleted afterwards.
        frozen: From ``write_frozen_part`` for this folder; its tensors are not written again.
    """
    names = frozen.names if frozen else frozenset()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in names}
    weights = write_tensors(directory, f"weights-{meta.epoch}", state)
    content = _meta_to_json(meta)
    content.update(weights_file=weights.name, weights_sha256=weights.sha256, frozen_file=None, frozen_sha256=None)
    if frozen:
        content.update(frozen_file=frozen.file.name, frozen_sha256=frozen.file.sha256)
    write_json(directory / META_FILE, content)
    remove_others(directory, [weights.name, *([frozen.file.name] if frozen else [])])


def copy_with_temperature(directory: Path, target: Path, temperature: float) -> None:
    """Copies a checkpoint into another folder, with the temperature that a calibration has found.

    Raises:
        StorageError: No checkpoint, or one that this version cannot read.
    """
    content = _read_meta(directory)
    _meta_from_json(content, directory)
    target.mkdir(parents=True, exist_ok=True)
    for key in ("weights_file", "frozen_file"):
        if content.get(key) is not None:
            name = plain_name(content[key], directory)
            shutil.copyfile(directory / name, target / name)
    write_json(target / META_FILE, {**content, "temperature": temperature})


def read_model_meta(directory: Path) -> ModelMeta:
    """What a checkpoint says of itself, without its weights.

    Raises:
        StorageError: No checkpoint, or one that this version cannot read.
    """
    return _meta_from_json(_read_meta(directory), directory)


def read_model_checkpoint(directory: Path) -> ModelCheckpoint:
    """Reads a checkpoint, its weights checked against the sha256 in checkpoint.json.

    Raises:
        StorageError: No checkpoint, one that this version cannot read, or weights that are missing or changed.
    """
    content = _read_meta(directory)
    meta = _meta_from_json(content, directory)
    state = read_tensors(directory, TensorFile(name=content["weights_file"], sha256=content["weights_sha256"]))
    if content.get("frozen_file"):
        frozen = TensorFile(name=content["frozen_file"], sha256=content["frozen_sha256"])
        state.update(read_tensors(directory, frozen))
    return ModelCheckpoint(meta=meta, state=state)


def _read_meta(directory: Path) -> dict[str, Any]:
    content = read_json(directory / META_FILE, "a model checkpoint")
    if content.get("format") != FORMAT:
        raise StorageError(
            f"a model checkpoint must have the format {FORMAT} that tlsearch {tlsearch.__version__} reads, "
            f"not {content.get('format')!r}: {directory / META_FILE}"
        )
    return content


def _meta_to_json(meta: ModelMeta) -> dict[str, Any]:
    content: dict[str, Any] = {"format": FORMAT, **dataclasses.asdict(meta)}
    content["class_to_idx"] = meta.class_to_idx
    content["metrics"] = {name: float(value) for name, value in meta.metrics.items()}
    return content


def _meta_from_json(content: Mapping[str, Any], directory: Path) -> ModelMeta:
    try:
        known = dataclasses.fields(ModelMeta)
        optional = {"temperature", "max_pixels"}  # younger than the format
        fields = {one.name: content[one.name] for one in known if one.name not in optional or one.name in content}
        transform = dict(fields["transform"])
        fields["transform"] = TransformSpec(
            **{**transform, "mean": tuple(transform["mean"]), "std": tuple(transform["std"])}
        )
        fields["config"] = TrialConfig(**fields["config"])
        fields["classes"] = tuple(fields["classes"])
        meta = ModelMeta(**fields)
        if not (math.isfinite(meta.temperature) and meta.temperature > 0):
            raise StorageError(f"a temperature is above 0, not {meta.temperature}: {directory / META_FILE}")
    except (KeyError, TypeError) as error:
        raise StorageError(f"a model checkpoint lacks {error}: {directory / META_FILE}") from error
    if content.get("class_to_idx") != meta.class_to_idx:
        raise StorageError(f"classes and class_to_idx of a checkpoint must agree: {directory / META_FILE}")
    return meta
