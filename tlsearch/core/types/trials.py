"""What a trial says while it runs and when it ends, and the Protocols of who runs one and who listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from tlsearch.core.metrics import Objective
from tlsearch.core.types.specs import TrialAssignment

SYSTEM = "system/"  # begins the names of metrics that tell of the machine, by MLflow's convention
FOLD_EPOCH = "fold_epoch"  # the metric of a trial with folds that names the epoch at which all of them are read
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
        folds: K, where this is the report of one of K folds: ``epoch`` is the fold, and the metrics of validation are
            means over the folds so far. 0 for an epoch.
        last: Whether nothing is left to train, though there could be more epochs: the head was solved.
    """

    epoch: int
    metrics: Mapping[str, float]
    timestamp: float
    source: str = "pixels"
    source_reason: str = ""
    start: StartReport | None = None
    folds: int = 0
    last: bool = False


def best_seen(reports: Sequence[EpochReport], objective: Objective) -> tuple[float | None, int | None]:
    """A trial's best value and its epoch, 0 for the model before the first step; of equal ones the earliest.

    Of a trial with folds it is the last: each mean replaces those over fewer folds.

    Args:
        reports: By epoch, from the first; without one, the answer is (None, None).
    """
    metric = objective.metric
    if reports and reports[-1].folds:
        return reports[-1].metrics[metric], reports[-1].epoch
    values = [(report.metrics[metric], report.epoch) for report in reports]
    if reports and reports[0].start is not None and metric in reports[0].start.metrics:
        values.insert(0, (reports[0].start.metrics[metric], 0))
    return objective.best(values, lambda pair: pair[0]) or (None, None)


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


class EndReason(StrEnum):
    """Why a trial ended."""

    COMPLETED = "completed"
    PLATEAUED = "plateaued"
    ASHA = "asha"
    BUDGET = "budget"
    STOPPED = "stopped"  # by the reporter of a trial that runs outside a search
    DIVERGED = "diverged"
    MEMORY = "memory"
    CONSTRAINT = "constraint"
    ERROR = "error"
    STORAGE = "storage"  # its worker cannot write: the search pauses, and a resume continues the trial

    @property
    def state(self) -> TrialState:
        """The state of a trial that ended so."""
        if self in (EndReason.COMPLETED, EndReason.PLATEAUED):
            return TrialState.COMPLETE
        if self in (EndReason.MEMORY, EndReason.CONSTRAINT):
            return TrialState.INFEASIBLE
        return TrialState.FAILED if self in (EndReason.ERROR, EndReason.STORAGE) else TrialState.PRUNED


def result_of(state: TrialState, reason: str, best_value: float | None) -> float | None:
    """A trial's best value, where it counts as a result: the trial is complete or pruned, and did not diverge."""
    counts = state in (TrialState.COMPLETE, TrialState.PRUNED) and reason != EndReason.DIVERGED
    return best_value if counts else None


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """How a trial ended, from its worker to the study and the observers.

    Attributes:
        error: Type and text of the error, where there was one.
        traceback: Its last lines.
        epochs_run: The last epoch reported; 0 before the first report.
        best_value: The best value, of the solved head before the first step too; None without a report.
        best_epoch: From 1; 0 before the first step.
        partial: Whether it is of a trial with folds that has not seen all of them: ranked after those that have.
        cost: What its model costs by the search's second objective; None without one, and where it is not known.
    """

    reason: EndReason
    error: str = ""
    traceback: str = ""
    epochs_run: int = 0
    best_value: float | None = None
    best_epoch: int | None = None
    partial: bool = False
    cost: float | None = None

    @property
    def state(self) -> TrialState:
        """The state of the trial; it follows from the reason."""
        return self.reason.state

    @property
    def result(self) -> float | None:
        """The value that it is ranked by; None where it failed or diverged."""
        return result_of(self.state, self.reason, self.best_value)


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Why a search ended before its trials were spent (``search.stop: auto``).

    Attributes:
        chance: That one of the trials that were left would have gained ``margin``.
        margin: Of the metric.
        trials: Trials that it had.
        limit: Trials that were asked for.
        excess: By how much the best values lie above the next one, as a mean.
    """

    chance: float
    margin: float
    trials: int
    limit: int
    excess: float

    @property
    def saved(self) -> int:
        """Trials that it left out."""
        return self.limit - self.trials


class Reporter(Protocol):
    """Takes a trial's reports and answers each with a decision."""

    def report(self, report: EpochReport) -> Decision: ...


class RunningTrial(Protocol):
    """A trial that is trained epoch by epoch.

    Opening one picks up the trial's running checkpoint, if there is one. ``step`` trains and
    evaluates one epoch, writes the checkpoints that are due, then returns; it raises TrialError
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
