"""Writes entries to MLflow so that writing them again changes nothing.

Entries of one trial that stand together become one ``log_batch``; runs are looked up by their tags
before they are made, and states are overwritten.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlsearch.errors import TrackingError
from tlsearch.tracking import entries as e
from tlsearch.tracking.batch import Point, TrialBatch, cut, summary_points, without_lost_models
from tlsearch.tracking.models import ModelShelf
from tlsearch.tracking.runs import PARENT, STATE, KnownRun, RunTable
from tlsearch.tracking.store import connect, open_experiment, store_errors
from tlsearch.tracking.worker import Away

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100


@dataclass(frozen=True, kw_only=True)
class _Session:
    """What is known of the store while it answers."""

    client: MlflowClient
    runs: RunTable
    shelf: ModelShelf


class MlflowWriter:
    """One search in one MLflow store. Usable from several threads, one at a time.

    Args:
        uri: An MLflow tracking URI with a database or a server behind it.
        metric: The search's metric, for ``best_<metric>``.
        served_code: See ModelShelf.
        uid: See RunTable.
        parent_search: See RunTable.
        parent_uid: See RunTable.
    """

    def __init__(
        self,
        uri: str,
        *,
        experiment: str,
        search_id: str,
        metric: str,
        served_code: Path,
        uid: str = "",
        parent_search: str = "",
        parent_uid: str = "",
    ) -> None:
        self._uri = uri
        self._experiment = experiment
        self._search_id = search_id
        self._uid = uid
        self._parent_search = parent_search
        self._parent_uid = parent_uid
        self._metric = metric
        self._served_code = served_code
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._times_ms: dict[tuple[int, int], int] = {}  # of the reports, by trial and epoch
        self._run_ids: dict[int, str] = {}

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
    def _guarded(self) -> Iterator[_Session]:
        with self._lock, store_errors(self._uri):
            try:
                yield self._open()
            except BaseException:
                # What is known may be wrong now: a run may exist whose answer was lost. Look it all up again.
                self._session = None
                raise

    def _open(self) -> _Session:
        if self._session is None:
            client = connect(self._uri)
            experiment_id = open_experiment(client, self._experiment, self._uri)
            runs = RunTable(
                client,
                experiment_id,
                self._search_id,
                uid=self._uid,
                parent_search=self._parent_search,
                parent_uid=self._parent_uid,
            )
            shelf = ModelShelf(
                client,
                experiment_id,
                self._search_id,
                tracking_uri=self._uri,
                served_code=self._served_code,
                uid=self._uid,
            )
            self._session = _Session(client=client, runs=runs, shelf=shelf)
            self._note_runs(runs)
        return self._session

    def _note_runs(self, runs: RunTable) -> None:
        # A new dict each time: another thread may be reading the old one.
        self._run_ids = {number: run.run_id for number, run in sorted(runs.trials.items())}

    def _write(self, session: _Session, entries: Sequence[e.Entry]) -> None:
        batches: dict[int, TrialBatch] = {}
        for entry in entries:
            if isinstance(entry, e.TrialReport):
                self._times_ms[entry.number, entry.epoch] = int(entry.timestamp * 1000)
                batches.setdefault(entry.number, TrialBatch(at=entry.timestamp)).add(entry)
            elif isinstance(entry, e.TrialStart | e.TrialEnd):
                batches.setdefault(entry.number, TrialBatch(at=entry.at)).add(entry)
            else:
                self._write_batches(session, batches)
                batches.clear()
                self._write_other(session, entry)
        self._write_batches(session, batches)

    def _write_other(
        self, session: _Session, entry: e.SearchStart | e.SearchEnd | e.WholeTrial | e.KeepModel | e.DropModel
    ) -> None:
        match entry:
            case e.SearchStart():
                self._start_search(session, entry)
            case e.SearchEnd():
                self._end_search(session, entry)
            case e.WholeTrial():
                self._write_whole(session, entry)
            case e.KeepModel():
                self._keep_model(session, entry)
            case e.DropModel():
                session.shelf.drop(entry.number)

    def _write_batches(self, session: _Session, batches: Mapping[int, TrialBatch]) -> None:
        for number, batch in batches.items():
            is_new = number not in session.runs.trials
            run = session.runs.trial(number, at=batch.at)
            if is_new:
                self._note_runs(session.runs)
            elif batch.started:
                batch.tags[PARENT] = session.runs.parent(at=batch.at).run_id
                if batch.end is None:
                    _set_running(session.client, run)
            self._write_batch(session.client, number, run, batch)

    def _write_batch(self, client: MlflowClient, number: int, run: KnownRun, batch: TrialBatch) -> None:
        end = batch.end
        if end is not None and end.best_epoch is not None:
            time_ms = self._time_ms(client, run, number, end.best_epoch, otherwise=end.at)
            batch.points += summary_points(end, self._metric, time_ms)
        self._log(client, run, params=batch.params, points=batch.points, tags=batch.tags)
        run.state = batch.tags.get(STATE, run.state)
        if end is not None:
            run.status = "FAILED" if end.state == "failed" else "FINISHED"
            client.set_terminated(run.run_id, status=run.status, end_time=int(end.at * 1000))

    def _write_whole(self, session: _Session, entry: e.WholeTrial) -> None:
        known = session.runs.trials.get(entry.start.number)
        if entry.end is not None and known is not None and known.has_ended(entry.end.state):
            return  # the end is written last: all the rest is there
        self._write(session, [entry.start, *entry.reports, *([entry.end] if entry.end else [])])

    def _time_ms(self, client: MlflowClient, run: KnownRun, number: int, epoch: int, *, otherwise: float) -> int:
        """When the trial reported an epoch."""
        if (number, epoch) not in self._times_ms:  # to an earlier process: MLflow has the point with its time
            for point in client.get_metric_history(run.run_id, self._metric):
                self._times_ms[number, point.step] = point.timestamp
        return self._times_ms.get((number, epoch), int(otherwise * 1000))

    def _start_search(self, session: _Session, entry: e.SearchStart) -> None:
        parent = session.runs.parent(at=entry.at)
        _set_running(session.client, parent)
        self._log(session.client, parent, params=entry.params, tags={STATE: "running"})
        _log_texts(session.client, parent, entry.artifacts)

    def _end_search(self, session: _Session, entry: e.SearchEnd) -> None:
        parent = session.runs.parent(at=entry.at)
        _log_texts(session.client, parent, entry.artifacts)
        session.client.set_tag(parent.run_id, STATE, entry.status)
        parent.status = _STATUS[entry.status]
        session.client.set_terminated(parent.run_id, status=parent.status, end_time=int(entry.at * 1000))

    def _keep_model(self, session: _Session, entry: e.KeepModel) -> None:
        run = session.runs.trials.get(entry.number)
        if run is None:
            logger.warning("trial %d has no run in MLflow: no model is logged", entry.number)
            return
        point = session.shelf.keep(entry.number, run.run_id, Path(entry.checkpoint))
        if point is not None:
            at = self._time_ms(session.client, run, entry.number, point.step, otherwise=point.time_ms / 1000)
            session.shelf.show(entry.number, run.run_id, point, at)

    def _log(
        self,
        client: MlflowClient,
        run: KnownRun,
        *,
        params: Mapping[str, str],
        points: Sequence[Point] = (),
        tags: Mapping[str, str],
    ) -> None:
        """One call, unless MLflow's limits of one call ask for more. A logged param cannot change: it is not resent."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        new = {key: cut(value, MAX_PARAM_VAL_LENGTH) for key, value in params.items() if key not in run.params}
        texts = [Param(key, value) for key, value in new.items()]
        metrics = [Metric(point.key, point.value, point.time_ms, point.step) for point in points]
        while len(texts) > _PARAMS_PER_CALL or len(metrics) > _METRICS_PER_CALL:
            client.log_batch(run.run_id, metrics=metrics[:_METRICS_PER_CALL], params=texts[:_PARAMS_PER_CALL])
            metrics, texts = metrics[_METRICS_PER_CALL:], texts[_PARAMS_PER_CALL:]
        labels = [RunTag(key, value) for key, value in tags.items()]
        client.log_batch(run.run_id, metrics=metrics, params=texts, tags=labels)
        run.params |= new


def _set_running(client: MlflowClient, run: KnownRun) -> None:
    if run.status != "RUNNING":
        client.update_run(run.run_id, status="RUNNING")
        run.status = "RUNNING"


def _log_texts(client: MlflowClient, run: KnownRun, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        client.log_text(run.run_id, text, name)
