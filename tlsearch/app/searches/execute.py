"""Executes a prepared search: joins search, tracking and results until its budget ends or it is stopped.

Of the trials' folders only what running trials need, the best models and all validation logits stay.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tlsearch.app.catalog.bucket_searches import Through, through_bucket
from tlsearch.app.catalog.catalog import SearchEntry, read_entry
from tlsearch.app.catalog.provenance import keep_evidence, record_end, record_start
from tlsearch.app.catalog.screen_file import read_screen
from tlsearch.app.catalog.stored import Status, forget_end, keep_end, read_record
from tlsearch.app.checks.feasibility import model_sizes, trial_depths, weights_digests
from tlsearch.app.searches.prepare import Prepared
from tlsearch.app.searches.screen_backbones import screened
from tlsearch.core.codec import fields_of
from tlsearch.core.layout import SearchFolder, evict_trial
from tlsearch.core.types import (
    Decision,
    EpochReport,
    RecordedSearch,
    ScreenObserver,
    SearchObserver,
    SearchRecord,
    TrialOutcome,
    TrialState,
)
from tlsearch.data import seen_digest
from tlsearch.results import SERVED_CODE
from tlsearch.search import SearchPlan, run_search
from tlsearch.search.json_logs import TrialTeller
from tlsearch.tracking import BestKeeper, MlflowTracker, TrackedSearch

logger = logging.getLogger(__name__)

_OPENED_AFTER_S = 10.0


@dataclass(frozen=True, kw_only=True)
class SearchEnd:
    """How a start of a search ended; ``unsent`` counts the records that MLflow did not get."""

    entry: SearchEntry
    reason: str
    record: SearchRecord
    run_ids: Mapping[int, str]
    unsent: int = 0


def search_plan(prepared: Prepared) -> SearchPlan:
    """What the engine is given; of the time budget what the screen of its backbones has left."""
    entry, file = prepared.entry, prepared.file
    setup = replace(
        file.trial_setup(),
        depths=trial_depths(file, prepared.space),
        data_digest=seen_digest(prepared.index),
        weights_digests=weights_digests(file, prepared.space.backbones()),
    )
    num_classes = len(prepared.index.classes)
    return SearchPlan(
        search_id=entry.search_id,
        uid=entry.uid,
        experiment=entry.experiment,
        directory=entry.directory,
        space=prepared.space,
        setup=setup,
        search=replace(file.search, time_budget_s=_budget_left_s(prepared)),
        resources=file.resources,
        address=prepared.address,
        num_classes=num_classes,
        sizes=model_sizes(file, prepared.space, num_classes),
    )


def _budget_left_s(prepared: Prepared) -> float | None:
    budget_s, screen = prepared.file.search.time_budget_s, read_screen(prepared.entry)
    return budget_s if budget_s is None or screen is None else max(0.0, budget_s - screen.seconds)


def execute(
    prepared: Prepared,
    *,
    observers: Sequence[SearchObserver] = (),
    screen_observer: ScreenObserver | None = None,
    stop: threading.Event,
) -> SearchEnd:
    """Runs or goes on with a prepared search until its budget ends or ``stop`` is set.

    Backbones that are to be screened are screened before. A search made for another one (``confirm``) keeps the
    checkpoints of all its trials: they are compared afterwards.

    Raises:
        SearchStopped: One error came too often in a row, or images are damaged.
        ClusterError: Ray cannot be reached.
        TrackingError: MLflow cannot be used at the start.
    """
    entry = prepared.entry
    forget_end(entry)
    tracker, through = make_tracker(entry), through_bucket(entry)
    recorders = _recorders(prepared, tracker, through)
    status: Status = "failed"
    reason = "failed"
    try:
        logger.info("the search %s on the Ray at %s", "goes on" if prepared.resumed else "begins", prepared.address)
        first = FirstReport()
        with _opening(prepared, tracker, first.came, failed=stop.set):
            everyone: tuple[SearchObserver, ...] = (*recorders, TrialTeller(entry.metric), *observers, first)
            with screened(prepared, stop=stop, observer=screen_observer) as ready:
                if ready is not prepared:
                    through.save()  # a study goes by what was decided, on whatever machine it goes on
                reason = "interrupted" if ready is None else _searched(ready, through, everyone, stop)
        status = "interrupted" if reason == "interrupted" else "finished"
    finally:
        logger.info("the search has ended: %s", reason)
        keep_end(entry, status)
        record = read_record(entry)
        record_end(tracker, entry, record, status)
        unsent = tracker.close()
        through.save()
    return SearchEnd(entry=entry, reason=reason, record=record, run_ids=tracker.run_ids(), unsent=unsent)


class FirstReport(SearchObserver):
    """Says when the first trial has reported or ended."""

    def __init__(self) -> None:
        self.came = threading.Event()

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        """It has reported."""
        self.came.set()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """It has ended, perhaps without a report."""
        self.came.set()


def _searched(ready: Prepared, through: Through, observers: Sequence[SearchObserver], stop: threading.Event) -> str:
    plan = search_plan(ready)
    return run_search(plan, factory=through.factory, observers=observers, stop=stop, lock=ready.lock)


@contextmanager
def _opening(
    prepared: Prepared, tracker: MlflowTracker, begun: threading.Event, *, failed: Callable[[], None]
) -> Iterator[None]:
    """Opens MLflow beside the body, and raises its error after it.

    That takes seconds of a processor, which the workers need for their first report: it waits for that, not for long.

    Args:
        begun: Set with the first report.
        failed: Called at once where MLflow cannot be used.
    """

    def begin() -> None:
        begun.wait(_OPENED_AFTER_S)
        try:
            keep_evidence(prepared.entry, prepared.index)
            record_start(tracker, prepared.entry, prepared.file)
        except BaseException:
            failed()
            raise

    with ThreadPoolExecutor(1, thread_name_prefix="search-start") as pool:
        opened = pool.submit(begin)
        try:
            yield
        finally:
            begun.set()
            opened.result()


def _recorders(prepared: Prepared, tracker: MlflowTracker, through: Through) -> tuple[SearchObserver, ...]:
    """The observers that keep what happens, in the order in which they need each other.

    The bucket's fetcher brings what an ended trial leaves, the tracker records it, the keeper has those models fetched
    that it keeps, the tidier deletes the others, and the bucket's dropper deletes them there.
    """
    entry, file = prepared.entry, prepared.file
    keep = 0 if file.search.num_folds else file.tracking.keep_best  # a trial with folds has no model of its own
    objective = file.trial_setup().objective
    keeper = BestKeeper(tracker, directory=entry.path, keep=keep, objective=objective, fetch=through.fetch)
    tidiers = () if entry.parent else (Tidier(keeper, directory=entry.path),)
    if prepared.resumed:
        earlier = read_record(entry)
        tracker.record_search(earlier)
        keeper.restore(earlier)
        for tidier in tidiers:
            tidier.restore(earlier)
    return (*through.before, tracker, keeper, *tidiers, *through.after)


def make_tracker(entry: SearchEntry) -> MlflowTracker:
    """Records the search in MLflow."""
    parent = read_entry(entry.path.parent / entry.parent) if entry.parent else None
    return MlflowTracker(
        TrackedSearch(
            metric=entry.metric,
            served_code=SERVED_CODE,
            parent_search=entry.parent,
            parent_uid=parent.uid if parent else "",
            **fields_of(RecordedSearch, entry.recorded),
        )
    )


class Tidier(SearchObserver):
    """Deletes the models of ended trials that are not among the best; comes after the keeper, which says so."""

    def __init__(self, keeper: BestKeeper, *, directory: Path) -> None:
        self._keeper = keeper
        self._folder = SearchFolder(root=directory)
        self._ended: set[int] = set()

    def restore(self, record: SearchRecord) -> None:
        """Deletes what an earlier start left behind."""
        self._ended = {trial.number for trial in record.trials if trial.state is not TrialState.RUNNING}
        self._delete()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Deletes the trial's running checkpoint, and the models of all trials that are not kept."""
        self._ended.add(number)
        self._delete()

    def _delete(self) -> None:
        kept = set(self._keeper.kept)
        for number in self._ended & kept:
            shutil.rmtree(self._folder.running(number), ignore_errors=True)
        for number in self._ended - kept:
            evict_trial(self._folder.trial(number))
        self._ended &= kept
