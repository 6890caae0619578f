"""One trial from start to end, without a search engine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from tlsearch.core.errors import Diverged, Infeasible
from tlsearch.core.types import Decision, EndReason, EpochReport, Reporter, RunningTrial, TrialAssignment, TrialOutcome
from tlsearch.trial.finetuning import RUNNING_FOLDER, FineTuning

_log = logging.getLogger(__name__)


def run_trial(assignment: TrialAssignment, reporter: Reporter) -> TrialOutcome:
    """Runs a trial until the reporter stops it or its epochs are done.

    Epochs that a running checkpoint holds are reported again first. At the end the running checkpoint is deleted.
    An interruption (KeyboardInterrupt) passes through and leaves it.
    """
    seen: list[EpochReport] = []
    error = ""
    try:
        reason = _run(FineTuning(assignment), assignment.setup.max_epochs, reporter, seen)
    except Diverged as fault:
        reason, error = EndReason.DIVERGED, str(fault)
    except Infeasible as fault:
        reason, error = EndReason.MEMORY, str(fault)
    except Exception as fault:
        _log.exception("trial %d failed", assignment.number)
        reason, error = EndReason.ERROR, f"{type(fault).__name__}: {fault}"
    shutil.rmtree(Path(assignment.directory) / RUNNING_FOLDER, ignore_errors=True)
    return _outcome(assignment, reason, error, seen)


def keep_start(assignment: TrialAssignment) -> None:
    """Leaves the trial's model before its first step, with its solved head, in the trial's ``best`` folder."""
    trial = FineTuning(assignment)
    try:
        trial.begin()
    finally:
        trial.close()


def _run(trial: RunningTrial, max_epochs: int, reporter: Reporter, seen: list[EpochReport]) -> EndReason:
    decision = Decision.CONTINUE
    try:
        for report in _reports(trial, max_epochs):
            seen.append(report)
            decision = reporter.report(report)
            if decision is not Decision.CONTINUE:
                break
    finally:
        trial.close()
    if decision is Decision.STOP:
        return EndReason.STOPPED
    return EndReason.COMPLETED if seen[-1].epoch == max_epochs else EndReason.PLATEAUED


def _reports(trial: RunningTrial, max_epochs: int) -> Iterator[EpochReport]:
    yield from trial.reports
    while trial.epochs_done < max_epochs:
        yield trial.step()


def _outcome(assignment: TrialAssignment, reason: EndReason, error: str, seen: list[EpochReport]) -> TrialOutcome:
    metric, sign = assignment.setup.metric, 1.0 if assignment.setup.mode == "max" else -1.0
    values = [(report.metrics[metric], report.epoch) for report in seen]
    if seen and seen[0].start is not None:
        values.insert(0, (seen[0].start.metrics[metric], 0))
    best_value, best_epoch = max(values, key=lambda one: sign * one[0], default=(None, None))
    return TrialOutcome(
        reason=reason,
        epochs_run=seen[-1].epoch if seen else 0,
        best_value=best_value,
        best_epoch=best_epoch,
        error=error,
    )
