"""A tracker that keeps everything in memory: for tests, and for looking at what a search would record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tlsearch.core.secrets import mask, mask_tree
from tlsearch.core.types import (
    DataSetFacts,
    Decision,
    EpochReport,
    Scalar,
    SearchRecord,
    TrialConfig,
    TrialOutcome,
    TrialState,
)
from tlsearch.tracking.runs import Point
from tlsearch.tracking.sink import entries as e
from tlsearch.tracking.sink.batch import TrialBatch, progress_points, summary_points
from tlsearch.tracking.sink.best_models import Progress


@dataclass(kw_only=True)
class MemoryRun:
    """A run as MLflow would show it; points have the set's meaning: the same one twice is one."""

    status: str = "RUNNING"
    state: str = "running"
    params: dict[str, str] = field(default_factory=dict)
    points: set[Point] = field(default_factory=set)
    artifacts: dict[str, str] = field(default_factory=dict)
    description: str = ""
    data: DataSetFacts | None = None


class MemoryTracker:
    """A Tracker with the meaning of MlflowTracker, without MLflow.

    Attributes:
        search: The search's own run, None before it started.
        trials: The runs of the trials by number.
        models: Checkpoint folders of the kept trials by number.
    """

    def __init__(self, *, metric: str = "val_accuracy") -> None:
        self.search: MemoryRun | None = None
        self.trials: dict[int, MemoryRun] = {}
        self.models: dict[int, Path] = {}
        self._metric = metric
        self._progress = Progress(metric)

    def search_started(
        self,
        params: Mapping[str, Scalar],
        artifacts: Mapping[str, str],
        *,
        description: str = "",
        data: DataSetFacts | None = None,
    ) -> None:
        """Records the search; a param that was recorded before keeps its old value."""
        self.search = self.search or MemoryRun()
        self.search.description = self.search.description or mask(description)
        self.search.data = data or self.search.data
        self.search.status, self.search.state = "RUNNING", "running"
        self.search.params = e.text_params(params) | self.search.params
        self.search.artifacts |= mask_tree(artifacts)

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """Records a trial that starts or goes on."""
        self._progress.trial_started(number)
        self._write(e.trial_start(number, config, at=0.0))

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """Records an epoch."""
        self._write(e.TrialReport(number=number, report=report))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Records how a trial ended, and where the search stands then."""
        self._write(e.TrialEnd(number=number, outcome=outcome, at=0.0))
        self._write_progress(self._progress.trial_ended(number, outcome, at=0.0))

    def record_search(self, record: SearchRecord) -> None:
        """Records every trial of a study and the search's progress; what is recorded already stays as it is."""
        for trial in record.trials:
            whole = e.whole_trial(trial, now=0.0)
            for entry in (whole.start, *whole.reports, whole.end):
                if entry is not None:
                    self._write(entry)
        for progress in self._progress.restore(record, now=0.0):
            self._write_progress(progress)

    def keep_model(self, number: int, checkpoint: Path) -> None:
        """Notes the trial's model."""
        self.models.setdefault(number, checkpoint)

    def drop_model(self, number: int) -> None:
        """Forgets the trial's model."""
        self.models.pop(number, None)

    def search_ended(self, status: Literal["finished", "interrupted", "failed"], artifacts: Mapping[str, str]) -> None:
        """Records how the search ended."""
        self.search = self.search or MemoryRun()
        self.search.state = status
        self.search.status = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[status]
        self.search.artifacts |= mask_tree(artifacts)

    def run_ids(self) -> Mapping[int, str]:
        """An id for each trial."""
        return {number: f"memory-{number}" for number in sorted(self.trials)}

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Nothing ever waits."""
        return True

    def close(self, timeout_s: float = 30.0) -> int:
        """Nothing stays unsent."""
        return 0

    def _write_progress(self, progress: e.SearchProgress) -> None:
        self.search = self.search or MemoryRun()
        if progress.ended not in {point.step for point in self.search.points}:
            self.search.points |= set(progress_points(progress))

    def _write(self, entry: e.TrialStart | e.TrialReport | e.TrialEnd) -> None:
        run = self.trials.setdefault(entry.number, MemoryRun())
        batch = TrialBatch(at=0.0)
        batch.add(entry)
        run.params = batch.params | run.params
        run.points |= set(batch.points)
        run.state = batch.tags.get("tlsearch.state", run.state)
        if batch.started:
            run.status = "RUNNING"
        if isinstance(entry, e.TrialEnd):
            run.status = "FAILED" if entry.outcome.state is TrialState.FAILED else "FINISHED"
            times = {p.step: p.time_ms for p in run.points if p.key == self._metric}
            run.points |= set(summary_points(entry.outcome, self._metric, times.get(entry.outcome.best_epoch or 0, 0)))
