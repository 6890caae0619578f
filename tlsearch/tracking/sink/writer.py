"""Writes entries to MLflow so that writing them again changes nothing.

Entries of one trial that stand together become one ``log_batch``; runs are looked up by their tags
before they are made, and states are overwritten.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.core.errors import TrackingError
from tlsearch.core.types import TrialState, repeatable
from tlsearch.tracking.mlflow_database import Away
from tlsearch.tracking.mlflow_store import connect, open_experiment, store_errors
from tlsearch.tracking.registry.logged_models import ModelShelf
from tlsearch.tracking.runs import PARENT, STATE, KnownRun, Point, RunTable, TrackedSearch
from tlsearch.tracking.sink import entries as e
from tlsearch.tracking.sink.batch import (
    TrialBatch,
    is_summary,
    log,
    report_points,
    set_running,
    summary_points,
    without_lost_models,
)
from tlsearch.tracking.sink.search_run import SearchRun, Session

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


class MlflowWriter:
    """One search in one MLflow store. Usable from several threads, one at a time."""

    def __init__(self, search: TrackedSearch) -> None:
        self._tracked = search
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._points: dict[int, dict[int, list[Point]]] = {}  # by trial and epoch; of an ended one only the best epoch
        self._run_ids: dict[int, str] = {}
        self._search = SearchRun(search.metric)

    @property
    def run_ids(self) -> Mapping[int, str]:
        """The runs of the trials that are known by now."""
        return self._run_ids

    def check(self, at: float) -> None:
        """Opens store, experiment and the search's run, and writes a tag.

        Raises:
            TrackingError: The store cannot be used.
            Away, Refused: As the store says.
        """
        with self._guarded() as session:
            parent = session.runs.parent(at=at)
            session.client.set_tag(parent.run_id, STATE, "running")

    def send(self, entries: Sequence[e.Entry]) -> None:
        """Writes entries in order.

        Raises:
            Away: The store does not answer; some of the entries may be written.
            Refused: It will never take one of them.
        """
        try:
            with self._guarded() as session:
                self._write(session, without_lost_models(entries))
        except TrackingError as error:  # it was usable at the start: somebody may set it right again
            raise Away(str(error)) from error

    @contextmanager
    def _guarded(self) -> Iterator[Session]:
        with self._lock, store_errors(self._tracked.uri):
            try:
                yield self._open()
            except BaseException:
                # What is known may be wrong now: a run may exist whose answer was lost. Look it all up again.
                self._session = None
                raise

    def _open(self) -> Session:
        if self._session is None:
            client = connect(self._tracked.uri)
            experiment_id = open_experiment(client, self._tracked.experiment, self._tracked.uri)
            runs = RunTable(client, experiment_id, self._tracked)
            shelf = ModelShelf(client, experiment_id, self._tracked)
            self._session = Session(client=client, experiment_id=experiment_id, runs=runs, shelf=shelf)
            self._note_runs(runs)
        return self._session

    def _note_runs(self, runs: RunTable) -> None:
        # A new dict each time: another thread may be reading the old one.
        self._run_ids = {number: run.run_id for number, run in sorted(runs.trials.items())}

    def _write(self, session: Session, entries: Sequence[e.Entry]) -> None:
        batches: dict[int, TrialBatch] = {}
        progress: list[e.SearchProgress] = []
        for entry in entries:
            if isinstance(entry, e.TrialReport):
                points = list(report_points(entry.report))
                by_epoch = {step: [one for one in points if one.step == step] for step in {one.step for one in points}}
                self._points.setdefault(entry.number, {}).update(by_epoch)
                batches.setdefault(entry.number, TrialBatch(at=entry.report.timestamp)).add(entry)
            elif isinstance(entry, e.TrialStart | e.TrialEnd):
                batches.setdefault(entry.number, TrialBatch(at=entry.at)).add(entry)
            elif isinstance(entry, e.SearchProgress):
                progress.append(entry)
            else:
                self._write_batches(session, batches, progress)
                batches.clear()
                progress.clear()
                self._write_other(session, entry)
        self._write_batches(session, batches, progress)

    def _write_other(
        self, session: Session, entry: e.SearchStart | e.SearchEnd | e.WholeTrial | e.KeepModel | e.DropModel
    ) -> None:
        match entry:
            case e.SearchStart():
                self._search.start(session, entry)
            case e.SearchEnd():
                self._search.end(session, entry)
            case e.WholeTrial():
                self._write_whole(session, entry)
            case e.KeepModel():
                self._keep_model(session, entry)
            case e.DropModel():
                session.shelf.drop(entry.number)

    def _write_batches(
        self, session: Session, batches: Mapping[int, TrialBatch], progress: Sequence[e.SearchProgress]
    ) -> None:
        for number, batch in batches.items():
            is_new = number not in session.runs.trials
            run = session.runs.trial(number, at=batch.at)
            if is_new:
                self._note_runs(session.runs)
            elif batch.started:
                batch.tags[PARENT] = session.runs.parent(at=batch.at).run_id
                if batch.end is None:
                    set_running(session.client, run)
            self._write_batch(session.client, number, run, batch)
        if progress:
            self._search.write_progress(session, progress)

    def _write_batch(self, client: MlflowClient, number: int, run: KnownRun, batch: TrialBatch) -> None:
        end = batch.end
        best = None if end is None else end.outcome.best_epoch
        if end is not None and best is not None:
            time_ms = self._time_ms(client, run, number, best, otherwise=end.at)
            batch.points += summary_points(end.outcome, self._tracked.metric, time_ms)
        log(client, run, params=batch.params, points=batch.points, tags=batch.tags)
        run.state = batch.tags.get(STATE, run.state)
        if end is not None:
            run.status = "FAILED" if end.outcome.state is TrialState.FAILED else "FINISHED"
            client.set_terminated(run.run_id, status=run.status, end_time=int(end.at * 1000))
            epochs = self._points.pop(number, {})
            if best in epochs:  # what its model may be shown with; the rest is written
                self._points[number] = {best: epochs[best]}

    def _write_whole(self, session: Session, entry: e.WholeTrial) -> None:
        known = session.runs.trials.get(entry.start.number)
        if entry.end is not None and known is not None and known.has_ended(entry.end.outcome.state.value):
            return  # the end is written last: all the rest is there
        self._write(session, [entry.start, *entry.reports, *([entry.end] if entry.end else [])])

    def _time_ms(self, client: MlflowClient, run: KnownRun, number: int, epoch: int, *, otherwise: float) -> int:
        """When the trial reported an epoch."""
        points = self._epoch_points(client, run, number, epoch)
        return points[0].time_ms if points else int(otherwise * 1000)

    def _epoch_points(self, client: MlflowClient, run: KnownRun, number: int, epoch: int) -> list[Point]:
        """What the trial reported of an epoch."""
        epochs = self._points.setdefault(number, {})
        if epoch not in epochs:  # to an earlier process: MLflow has the points with their time
            keys = client.get_run(run.run_id).data.metrics
            found = (point for key in keys for point in client.get_metric_history(run.run_id, key))
            epochs[epoch] = [
                Point(key=point.key, value=point.value, time_ms=point.timestamp, step=point.step)
                for point in found
                if point.step == epoch and not is_summary(point.key, self._tracked.metric)
            ]
        return epochs[epoch]

    def _keep_model(self, session: Session, entry: e.KeepModel) -> None:
        run = session.runs.trials.get(entry.number)
        if run is None:
            logger.warning("trial %d has no run in MLflow: no model is logged", entry.number)
            return
        point = session.shelf.keep(entry.number, run, Path(entry.checkpoint))
        if point is not None:
            points = self._epoch_points(session.client, run, entry.number, point.step)
            shown = [one for one in points if repeatable(one.key)] or [point]
            session.shelf.show(entry.number, run.run_id, shown, step=point.step)
        self._search.name_best_model(session, entry.number)
