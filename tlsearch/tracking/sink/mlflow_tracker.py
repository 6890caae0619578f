"""Records a search in MLflow without ever making it wait."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tlsearch.core.errors import TrackingError
from tlsearch.core.secrets import mask, mask_tree
from tlsearch.core.types import DataSetFacts, Decision, EpochReport, Scalar, SearchRecord, TrialConfig, TrialOutcome
from tlsearch.tracking.mlflow_database import Away, Refused
from tlsearch.tracking.mlflow_store import quiet_mlflow, told_at_start
from tlsearch.tracking.runs import TrackedSearch
from tlsearch.tracking.sink import entries as e
from tlsearch.tracking.sink.best_models import Progress
from tlsearch.tracking.sink.worker import Worker
from tlsearch.tracking.sink.writer import MlflowWriter

logger = logging.getLogger(__name__)


class MlflowTracker:
    """A Tracker over MLflow: one experiment, a parent run for the search, a nested run for each trial.

    All calls but ``search_started`` return at once; from that call on a thread sends what they say, the search's start
    first and then the rest in order, also what was recorded before.
    While MLflow is away they wait in memory; what has not been sent when the process ends is sent from the study
    (``record_search``) by the next tracker of the same search.

    Args:
        first_retry_s: The wait after the first failure; doubled after each further one up to
            ``last_retry_s``.
    """

    def __init__(self, search: TrackedSearch, *, first_retry_s: float = 1.0, last_retry_s: float = 60.0) -> None:
        # Imports mlflow as a whole, on this thread: Tune imports it, too, and two threads that begin at different parts
        # deadlock.
        quiet_mlflow()
        self._uri = search.uri
        self._progress = Progress(search.metric)
        self._writer = MlflowWriter(search)
        self._worker = Worker(self._writer.send, first_retry_s=first_retry_s, last_retry_s=last_retry_s)

    def search_started(
        self,
        params: Mapping[str, Scalar],
        artifacts: Mapping[str, str],
        *,
        description: str = "",
        data: DataSetFacts | None = None,
    ) -> None:
        """Checks that MLflow can be used, then records the search; also after a resume.

        Args:
            params: Of the search; one that was recorded before keeps its old value.
            artifacts: Texts by file name.
            description: Markdown for the page of the search's run; a person's own words there stay.
            data: What the search trains on.

        Raises:
            TrackingError: The URI is wrong, the store cannot be written, or the experiment was deleted.
                A server that merely does not answer is not an error: it is waited for in the background. After
                the error all other calls do nothing.
        """
        now = time.time()
        try:
            self._writer.check(now)
        except TrackingError:
            self._worker.give_up()
            raise
        except (Away, Refused) as error:
            problem = told_at_start(self._uri, error)
            if problem is not None:
                self._worker.give_up()
                raise problem from error
            logger.warning("MLflow is away at the start: %s", error)
        self._worker.start(
            e.SearchStart(
                params=e.text_params(params),
                artifacts=mask_tree(artifacts),
                at=now,
                description=mask(description),
                data=data,
            )
        )

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """Records a trial that starts or goes on."""
        self._progress.trial_started(number)
        self._worker.put(e.trial_start(number, config, at=time.time()))

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """Records an epoch."""
        self._worker.put(e.TrialReport(number=number, report=report))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Records how a trial ended, and where the search stands then."""
        now = time.time()
        progress = self._progress.trial_ended(number, outcome, at=now)
        self._worker.put(e.TrialEnd(number=number, outcome=outcome, at=now), progress)

    def record_search(self, record: SearchRecord) -> None:
        """Records every trial of a study and the search's progress; what is recorded already stays as it is."""
        now = time.time()
        self._worker.put(*(e.whole_trial(trial, now=now) for trial in record.trials))
        self._worker.put(*self._progress.restore(record, now=now))

    def keep_model(self, number: int, checkpoint: Path) -> None:
        """Logs a checkpoint folder as an MLflow model of the trial's run, unless it has one."""
        self._worker.put(e.KeepModel(number=number, checkpoint=str(checkpoint)))

    def drop_model(self, number: int) -> None:
        """Deletes the trial's model with its files, if it has one."""
        self._worker.put(e.DropModel(number=number))

    def search_ended(self, status: Literal["finished", "interrupted", "failed"], artifacts: Mapping[str, str]) -> None:
        """Records how the search ended; ``artifacts`` are texts by file name."""
        self._worker.put(e.SearchEnd(status=status, artifacts=mask_tree(artifacts), at=time.time()))

    def run_ids(self) -> Mapping[int, str]:
        """The runs of the trials that have reached MLflow by now, by trial number."""
        return self._writer.run_ids

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Waits until all is sent or MLflow is away; whether all is sent."""
        return self._worker.flush(timeout_s)

    def close(self, timeout_s: float = 30.0) -> int:
        """Sends what is left, for at most ``timeout_s``; returns how many records stay unsent."""
        return self._worker.close(timeout_s)
