"""What a trial says while it runs and when it ends, and the Protocols of who runs one and who listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tlsearch.types.specs import TrialAssignment

SYSTEM = "system/"  # begins the names of metrics that tell of the machine, by MLflow's convention
_TIMINGS = ("epoch_seconds", "images_per_second")


def repeatable(name: str) -> bool:
    """Whether a metric is the same whenever the trial is trained again; times and the machine's load are not."""
    return name not in _TIMINGS and not name.startswith(SYSTEM)


@dataclass(frozen=True, kw_only=True)
class StartReport:
    """What a trial's model is worth before its first step: its head starts as the solved linear probe.

    Attributes:
        metrics: Of the evaluation on the validation images: val_loss, val_accuracy, ...; all finite.
        timestamp: When it was evaluated.
    """

    metrics: Mapping[str, float]
    timestamp: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One epoch's figures.

    Attributes:
        epoch: From 1.
        metrics: train_loss, train_accuracy, val_loss, val_accuracy, val_macro_f1, epoch_seconds,
            images_per_second, what its process used of the machine (``system/...``) and what else the trial
            measured; all finite.
        timestamp: When the epoch ended.
        source: ``features`` or ``pixels``: what the epoch read.
        source_reason: Why.
        start: The model before the first step, in the report of epoch 1; None with a random head.
    """

    epoch: int
    metrics: Mapping[str, float]
    timestamp: float
    source: str = "pixels"
    source_reason: str = ""
    start: StartReport | None = None


class Decision(str, Enum):
    """What the search answers to a report."""

    CONTINUE = "continue"
    STOP = "stop"  # cut by the scheduler, or the budget is spent: PRUNED
    COMPLETE = "complete"  # reached max_epochs, or plateaued past the first rung: COMPLETE


class TrialState(str, Enum):
    """A trial's state as the user sees it; the study's own states follow section 6 of the design."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"


INTERRUPTED = "interrupted"  # an unfinished trial of a search that no process runs
REASONS = ("completed", "plateaued", "asha", "diverged", "memory", "constraint", "error", "budget")


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """How a trial ended; ``reason`` is one of REASONS, ``error`` the message of a failed one."""

    state: TrialState
    reason: str
    epochs_run: int
    best_value: float | None = None
    best_epoch: int | None = None
    error: str = ""


class Reporter(Protocol):
    """Takes a trial's reports and answers each with a decision."""

    def report(self, report: EpochReport) -> Decision: ...


class RunningTrial(Protocol):
    """A trial that is trained epoch by epoch.

    Opening one picks up the trial's running checkpoint, if there is one. ``step`` trains and
    evaluates one epoch, writes the checkpoints that are due, then returns; it raises TrialFault
    (Diverged, Infeasible, FrozenMoved) where the trial cannot go on.
    """

    @property
    def epochs_done(self) -> int: ...

    @property
    def reports(self) -> Sequence[EpochReport]:
        """Reports of epochs done, oldest first; the running checkpoint carries them.

        After a resume at least the report of the checkpoint's own epoch is here: if the driver died
        between checkpoint and report, that epoch is reported again from here, not skipped.
        """
        ...

    def step(self) -> EpochReport: ...

    def save(self) -> None:
        """Writes the running checkpoint of the last epoch done now, unless it is written."""
        ...

    def close(self) -> None: ...


class TrialFactory(Protocol):
    """Opens a trial: the real fine-tuning, or a replayed one in tests."""

    def __call__(self, assignment: TrialAssignment) -> RunningTrial: ...
