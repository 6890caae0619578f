"""A trial inside a Ray worker: a class Trainable whose actor is reused from trial to trial."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import ray
from ray.tune import Trainable

from tlsearch.errors import Diverged
from tlsearch.search.faults import Classified, classify
from tlsearch.search.messages import Job, Message, pack, unpack_job
from tlsearch.types import EpochReport, RunningTrial, TrialAssignment, TrialFactory

logger = logging.getLogger(__name__)


def fine_tuning(assignment: TrialAssignment) -> RunningTrial:
    """Opens the real trial; torch is imported here, in the worker, and never by the driver."""
    from tlsearch.trial import FineTuning

    return FineTuning(assignment)


class TrialWorker(Trainable):
    """Runs one trial after another; ``make_worker`` sets the factory.

    Nothing of a trial is opened before ``step``, where every exception is caught, classified and
    retried from the trial's own checkpoint: the actor, with all that it has imported, stays.
    """

    factory: TrialFactory

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the first trial."""
        self._node = ray.get_runtime_context().get_node_id()
        self._trial: RunningTrial | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial."""
        self._close()
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._job: Job = unpack_job(config)
        self._reported = self._job.reported
        self._failures = 0

    def step(self) -> dict[str, Any]:
        """One epoch, or why there is none."""
        while True:
            try:
                return self._message(report=self._next_report())
            except Exception as error:
                found = classify(error)
                self._close()
                if found.sticky:
                    raise  # Ray replaces the actor; the driver counts
                self._failures += 1
                if not found.retry or self._failures > self._job.max_failures:
                    return self._failed(found)
                logger.warning("trial %d is retried: %s", self._job.assignment.number, found.error)

    def cleanup(self) -> None:
        """The actor ends."""
        self._close()

    def _next_report(self) -> EpochReport:
        if self._trial is None:
            self._trial = type(self).factory(self._job.assignment)
        trial = self._trial
        if trial.epochs_done > self._reported:
            report = self._unsent(trial)
        else:
            report = trial.step()
        _check(report, self._job.assignment.setup.metric)
        self._reported = max(self._reported, report.epoch)
        return report

    def _unsent(self, trial: RunningTrial) -> EpochReport:
        """The report of an epoch that the checkpoint has and the study has not.

        Where the checkpoint does not hold it, the checkpoint is of no use and the trial begins anew:
        its epochs are the same again.
        """
        for report in trial.reports:
            if report.epoch == self._reported + 1:
                return report
        number, directory = self._job.assignment.number, Path(self._job.assignment.directory)
        logger.warning("trial %d begins anew: its checkpoint is ahead of the study without the report", number)
        self._close()
        shutil.rmtree(directory / "running", ignore_errors=True)
        self._trial = type(self).factory(self._job.assignment)
        return self._trial.step()

    def _message(self, **what: Any) -> dict[str, Any]:
        return dict(pack(Message(number=self._job.assignment.number, node=self._node, failures=self._failures, **what)))

    def _failed(self, found: Classified) -> dict[str, Any]:
        return self._message(reason=found.reason, error=found.error, traceback=found.traceback)

    def _close(self) -> None:
        trial, self._trial = self._trial, None
        if trial is not None:
            try:
                trial.close()
            except Exception:
                logger.exception("closing trial %d failed", self._job.assignment.number)


def _check(report: EpochReport, metric: str) -> None:
    """A report that the study can hold: it has the metric, and all is finite."""
    if metric not in report.metrics:
        raise KeyError(f"a report must hold {metric}; it holds {', '.join(sorted(report.metrics))}")
    for name, value in report.metrics.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} is {value} in epoch {report.epoch}")


def make_worker(factory: TrialFactory) -> type[TrialWorker]:
    """The worker class for a factory; it travels to the nodes by value, the factory with it."""
    return type("TlsearchTrial", (TrialWorker,), {"factory": staticmethod(factory)})
