"""Runs one trial in its worker, epoch by epoch: opens it, catches what it raises, retries; knows no Ray."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlsearch.core.errors import Diverged
from tlsearch.core.types import EndReason, EpochReport, RunningTrial, TrialAssignment, TrialFactory, TrialOutcome
from tlsearch.search.scheduling.stopping_rules import complaint
from tlsearch.search.worker.messages import Job, Message
from tlsearch.search.worker.trial_errors import classify

logger = logging.getLogger(__name__)

Gauge = Callable[[TrialAssignment, Sequence[str]], Mapping[str, float]]  # trial and names -> values by name


class Runner:
    """One trial: every exception is caught, classified, and retried from the trial's own checkpoint."""

    def __init__(
        self,
        job: Job,
        factory: TrialFactory,
        *,
        gauge: Gauge | None = None,
        node: str = "",
        leaving: Callable[[], bool] = lambda: False,
        taken: Callable[[], str] = str,
    ) -> None:
        """Opens nothing yet, so it cannot fail.

        Args:
            gauge: Measures a trial's model before it is trained; None where nothing is to be measured.
            leaving: Whether this machine is about to go: then every epoch ends with a running checkpoint.
            taken: Who else holds memory of the trial's whole device, in words; empty for nobody. Running out of it
                is then an error, which a retry may help, and no verdict on the configuration.
        """
        self._job = job
        self._factory = factory
        self._gauge = gauge
        self._measured = dict(job.measured)
        self._node = node
        self._leaving = leaving
        self._taken = taken
        self._number = job.assignment.number
        self._reported = job.reported
        self._failures = 0
        self._trial: RunningTrial | None = None

    def step(self) -> Message:
        """The next epoch's report, or why there is none.

        Raises:
            Exception: One that has spoilt the process (a CUDA context); the worker must end with it.
        """
        while True:
            try:
                self._measure()
                broken = complaint(self._measured, self._job.limits)
                if broken:
                    return self._message(outcome=TrialOutcome(reason=EndReason.CONSTRAINT, error=broken))
                return self._message(report=self._next_report())
            except Exception as error:
                found = classify(error)
                if found.sticky:
                    self.close()
                    raise  # Ray replaces the actor; the driver counts
            # Outside of the handler: the traceback no longer holds what the failed step had on the device.
            self.close()
            self._failures += 1
            outcome, retry = found.outcome, found.retry
            if outcome.reason is EndReason.MEMORY and (others := self._taken()):
                outcome, retry = replace(outcome, reason=EndReason.ERROR, error=f"{others}: {outcome.error}"), True
            if not retry or self._failures > self._job.max_failures:
                return self._message(outcome=outcome)
            logger.warning("trial %d is retried: %s", self._number, outcome.error)

    def close(self) -> None:
        """Closes the trial, if it is open."""
        trial, self._trial = self._trial, None
        if trial is not None:
            try:
                trial.close()
            except Exception:
                logger.exception("closing trial %d failed", self._number)

    def _message(self, **content: Any) -> Message:
        return Message(number=self._number, node=self._node, measured=self._measured, **content)

    def _measure(self) -> None:
        """Once, and not again where an earlier worker did: a trial is not ended by a second, slower look."""
        if self._gauge is not None and {*self._job.gauged} - self._measured.keys():
            self._measured |= self._gauge(self._job.assignment, self._job.gauged)

    def _next_report(self) -> EpochReport:
        if self._trial is None:
            self._trial = self._factory(self._job.assignment)
        trial = self._trial
        report = self._unsent(trial) if trial.epochs_done > self._reported else trial.step()
        _check(report, self._job.assignment.setup.metric)
        if self._leaving() and self._trial is not None:
            self._trial.save()
        self._reported = max(self._reported, report.epoch)
        return report

    def _unsent(self, trial: RunningTrial) -> EpochReport:
        """The report of an epoch that the checkpoint has and the study has not.

        Where the checkpoint does not hold it, the checkpoint is of no use and the trial starts again:
        its epochs are the same again.
        """
        for report in trial.reports:
            if report.epoch == self._reported + 1:
                return report
        logger.warning("trial %d starts again: its checkpoint is ahead of the study without a report", self._number)
        self.close()
        shutil.rmtree(Path(self._job.assignment.directory) / "running", ignore_errors=True)
        self._trial = self._factory(self._job.assignment)
        return self._trial.step()


def _check(report: EpochReport, metric: str) -> None:
    """A report that the study can hold: it has the metric, and all is finite."""
    if metric not in report.metrics:
        raise KeyError(f"a report must hold {metric}; it holds {', '.join(sorted(report.metrics))}")
    for name, value in report.metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} is {value} in epoch {report.epoch}")
