"""The checkpoint of a running trial: what it takes to go on from an epoch's end.

``running.json`` is written last and names the tensors' file: the model's tensors that training moves, their averages
and the optimiser's state. The frozen rest comes from the pretrained weights again. Learning rates follow from the
epoch, and no generator's state is stored: all that is random in an epoch is seeded from (trial seed, epoch).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlsearch.core.codec import from_plain, to_plain
from tlsearch.core.errors import StorageError
from tlsearch.core.types import EpochReport, TrialAssignment, TrialConfig
from tlsearch.train import (
    TensorFile,
    Trainer,
    moving_state,
    read_json,
    read_tensors,
    remove_others,
    write_json,
    write_tensors,
)

_log = logging.getLogger(__name__)
_FORMAT = 1
_META_FILE = "running.json"
_MODEL, _OPTIMIZER, _AVERAGE, _HELD_OUT = "model/", "optimizer/", "ema/", "held_out/"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a trial has come; ``reports`` are those of all epochs done, oldest first.

    Attributes:
        held_out: Of the training of a fold: by epoch, 0 before the first step, the logits of its validation images.
    """

    reports: tuple[EpochReport, ...] = ()
    best_value: float | None = None
    best_epoch: int | None = None
    held_out: Mapping[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A running checkpoint that was read and is not yet loaded."""

    content: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    progress: Progress

    @property
    def epochs_done(self) -> int:
        """The epoch after which it was written."""
        return epochs_of(self.progress.reports)


def save_running(
    directory: Path, *, assignment: TrialAssignment, trainer: Trainer, frozen_digest: str, progress: Progress
) -> None:
    """Replaces the running checkpoint of a trial's ``running`` folder."""
    held_out = {f"{_HELD_OUT}{epoch}": logits for epoch, logits in progress.held_out.items()}
    tensors = write_tensors(directory, f"state-{epochs_of(progress.reports)}", _tensors(trainer) | held_out)
    content = {
        **_identity(assignment),
        "frozen_digest": frozen_digest,
        "reports": [to_plain(report) for report in progress.reports],
        "best_value": progress.best_value,
        "best_epoch": progress.best_epoch,
        "micro_batch": trainer.micro_batch,
        "scaler": trainer.scaler.state_dict(),
        "tensors_file": tensors.name,
        "tensors_sha256": tensors.sha256,
    }
    write_json(directory / _META_FILE, content)
    remove_others(directory, [tensors.name])


def read_running(directory: Path, assignment: TrialAssignment) -> Running | None:
    """Reads a trial's running checkpoint.

    Returns:
        None without a checkpoint that is sound and of this very trial: it then starts from its
        first epoch, which costs time only.
    """
    if not (directory / _META_FILE).is_file():
        return None
    try:
        content = read_own(directory / _META_FILE, "a running checkpoint", _identity(assignment))
        file = TensorFile(name=content["tensors_file"], sha256=content["tensors_sha256"])
        tensors = read_tensors(directory, file)
        progress = Progress(
            reports=tuple(from_plain(EpochReport, report) for report in content["reports"]),
            best_value=content["best_value"],
            best_epoch=content["best_epoch"],
            held_out={int(n.removeprefix(_HELD_OUT)): t for n, t in tensors.items() if n.startswith(_HELD_OUT)},
        )
        if not progress.reports:
            raise StorageError("it holds no epoch")
        return Running(content=content, tensors=tensors, progress=progress)
    except (StorageError, KeyError, TypeError, ValueError) as error:
        _log.warning("trial %d starts again; its checkpoint cannot be used: %s", assignment.number, error)
        return None


def read_own(path: Path, what: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's JSON file, which must say that it is of this very trial.

    Args:
        identity: What it must hold, the trial's ``config`` among it.

    Raises:
        StorageError, KeyError, TypeError, ValueError: It is damaged, or another trial's.
    """
    content = read_json(path, what)
    content["config"] = to_plain(from_plain(TrialConfig, content["config"]))  # fields may be younger than the file
    for name, value in identity.items():
        if content.get(name) != value:
            raise StorageError(f"its {name} is not this trial's")
    return content


def identity_of(assignment: TrialAssignment) -> dict[str, Any]:
    """What tells a trial from every other one, as JSON has it."""
    return {
        "number": assignment.number,
        "seed": assignment.seed,
        "config": to_plain(assignment.config),
        "max_epochs": assignment.setup.max_epochs,
    }


def load_running(running: Running, trainer: Trainer, *, frozen_digest: str) -> bool:
    """Puts model, averages and optimiser where the checkpoint left them.

    Args:
        trainer: Of the same trial, opened in the phase of the checkpoint's epoch.
        frozen_digest: Of the tensors that were frozen before the trial's first step.

    Returns:
        False, with nothing touched, where the checkpoint is not of this very model.
    """
    lacking = _tensors(trainer).keys() - running.tensors.keys()
    if lacking or running.content["frozen_digest"] != frozen_digest:
        why = f"it lacks {min(lacking)}" if lacking else "its frozen tensors were others"
        _log.warning("trial %d starts again; its checkpoint cannot be used: %s", running.content["number"], why)
        return False
    _load_tensors(trainer, running.tensors)
    trainer.micro_batch = running.content["micro_batch"]
    trainer.scaler.load_state_dict(running.content["scaler"])
    return True


def _identity(assignment: TrialAssignment) -> dict[str, Any]:
    return {"format": _FORMAT, **identity_of(assignment)}


def _tensors(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {_MODEL + name: tensor for name, tensor in moving_state(trainer.model).items()}
    for name, parameter in trainer.model.trainable_parameters().items():
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{name}/{key}"] = value
    if trainer.average is not None:
        tensors |= {_AVERAGE + name: tensor for name, tensor in trainer.average.averages.items()}
    return tensors


@torch.no_grad()
def _load_tensors(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in moving_state(trainer.model).items():
        tensor.copy_(tensors[_MODEL + name])
    parameters = trainer.model.trainable_parameters()
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            parameter_name, key = name.removeprefix(_OPTIMIZER).rsplit("/", 1)
            parameter = parameters[parameter_name]
            trainer.optimizer.state[parameter][key] = _like(parameter, value)
    if trainer.average is not None:
        trainer.average.load({n.removeprefix(_AVERAGE): t for n, t in tensors.items() if n.startswith(_AVERAGE)})


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """The state beside its parameter: the fused step walks both in memory order, so that order must agree."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def epochs_of(reports: Sequence[EpochReport]) -> int:
    """The last epoch done; 0 before the first."""
    return reports[-1].epoch if reports else 0
