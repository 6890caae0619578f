"""Runs a search on Ray Tune: a new Tuner at every start, driven by the study alone; its settings and its searcher."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from traceback import walk_tb
from typing import Any, cast

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune import ResultGrid
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import ProgressReporter, TrialProgressCallback
from ray.tune.search import Searcher

from tlsearch.core.errors import ClusterError
from tlsearch.core.text import first_line
from tlsearch.core.types import SearchObserver, TrialFactory
from tlsearch.core.user_folders import scratch_folder
from tlsearch.search.cluster.connect import connected
from tlsearch.search.controller.controller import Controller
from tlsearch.search.inspect.running_status import telling_dashboard
from tlsearch.search.plan import SearchPlan
from tlsearch.search.ray_tune.resources import Room, alive_nodes, job_resources, settle_shares
from tlsearch.search.ray_tune.scheduler import StudyScheduler, Watch
from tlsearch.search.ray_tune.trainable import fine_tuning, make_worker
from tlsearch.search.study.lock import SearchLock
from tlsearch.search.study.rdb import database_errors
from tlsearch.search.study.stop_request import heeding_stop_requests
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.worker.messages import pack

_ENVIRONMENT: Mapping[str, str] = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no result files: the study holds all
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nor Tune's own state, which is never restored
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the searcher holds back, not Tune
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints at any verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


class NoOutput(TrialProgressCallback):
    """Stands where Tune would put its own printer, which prints lines of ended trials at any verbosity."""

    def on_trial_result(self, *args: Any, **info: Any) -> None:
        """Prints and keeps nothing."""

    def on_trial_error(self, *args: Any, **info: Any) -> None:
        """Prints and keeps nothing."""

    def on_trial_complete(self, *args: Any, **info: Any) -> None:
        """Prints and keeps nothing."""


class NoReport(ProgressReporter):
    """In a notebook Tune's own reporter would clear the cell, the search's live table with it, at any verbosity."""

    def should_report(self, *args: Any, **info: Any) -> bool:
        """Never."""
        return False

    def report(self, *args: Any, **info: Any) -> None:
        """Prints nothing."""


@contextmanager
def tune_environment() -> Iterator[None]:
    """Tune's settings are variables of the environment; also keeps its SIGUSR1 handler from staying.

    Tune would give the driver's AWS keys to the workers in a runtime environment, which Ray writes into the log of
    every node. They stay here: a node has its own.
    """
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGUSR1) if main else None
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if main:
            signal.signal(signal.SIGUSR1, handler)


class StudySearcher(Searcher):
    """Hands out trials while there is room for another."""

    def __init__(self, controller: Controller, watch: Watch, *, room: Callable[[Sequence[float], float], bool]) -> None:
        super().__init__()
        self._controller = controller
        self._watch = watch
        self._room = room

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """A trial's job; None while all slots are taken or trials have to end first; FINISHED when none will come.

        Tune asks again at every turn after a None, and never after FINISHED.
        """
        answer: Any = Searcher.FINISHED
        with self._watch.guard():
            if not self._controller.exhausted and self._watch.error is None:
                answer = self._next_job(trial_id)
        return cast("dict[str, Any] | None", answer)  # Tune compares with FINISHED, a string

    def _next_job(self, trial_id: str) -> dict[str, str] | str | None:
        usual = self._controller.shares.usual or 0.0
        if not self._room([self._controller.gpus(number) for number in self._watch.handed_out.values()], usual):
            return None
        job = self._controller.next_trial()
        if job is None:
            return Searcher.FINISHED if self._controller.exhausted else None
        self._watch.handed_out[trial_id] = job.assignment.number
        return pack(job)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The trial has left Tune, however it ended."""
        self._watch.handed_out.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only truth."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its own description of the run, which is never read


logger = logging.getLogger(__name__)


def run(
    plan: SearchPlan,
    *,
    factory: TrialFactory | None = None,
    observers: Sequence[SearchObserver] = (),
    stop: threading.Event | None = None,
    lock: SearchLock | None = None,
) -> str:
    """See ``tlsearch.search.run_search``."""
    stop = stop or threading.Event()
    with (
        database_errors(plan.search.study),
        closing(open_for_writing(plan.folder, attrs=study_attrs(plan), url=plan.search.study, lock=lock)) as study,
    ):

        def begun() -> Controller:
            return Controller(plan, study, observers=observers, stop=stop)

        controller = begun()
        if not controller.exhausted:
            with (
                heeding_stop_requests(plan.folder, study.holder, stop),
                connected(plan.address) as dashboard,
                telling_dashboard(plan.folder.dashboard, dashboard),
            ):
                controller = _tune_on(plan, controller, begun, factory or fine_tuning, stop)
        if controller.failure is not None:
            raise controller.failure
        return controller.finish()


def _tune_on(
    plan: SearchPlan,
    controller: Controller,
    begun: Callable[[], Controller],
    factory: TrialFactory,
    stop: threading.Event,
) -> Controller:
    """Runs Tune, again where a node's memory ran out: Ray then kills workers, which ends Tune (2.60) with an error.

    Args:
        controller: Of the first run.
        begun: Makes one for each further run, from the study.

    Returns:
        The controller of the last run.

    Raises:
        ClusterError: It ran out more often than ``max_failures``; the search can be resumed.
    """
    for failures in count(1):
        try:
            _tune(plan, controller, factory, stop)
        except OutOfMemoryError as error:
            if failures > plan.search.max_failures:
                raise ClusterError(
                    f"the memory of a node ran out {failures} times, and Ray killed its workers each time; nothing is "
                    f"lost: resume with fewer trials at a time (resources.max_concurrent), or with other programs "
                    f"ended. Ray says: {first_line(error)}"
                ) from error
            logger.warning("the memory of a node ran out; the trials go on from their checkpoints: %s", error)
            controller = begun()
        else:
            return controller
    raise AssertionError("count() ends never")


def _tune(plan: SearchPlan, controller: Controller, factory: TrialFactory, stop: threading.Event) -> None:
    """One run of Tune, until the controller is exhausted and no trial is live."""
    settle_shares(controller.shares, plan.resources, alive_nodes())
    room = Room(plan.resources, controller.shares.usual or 0.0)
    resources = partial(job_resources, float(plan.resources.cpus_per_trial))
    timeout_s = plan.search.trial_timeout_s
    watch = Watch()
    with tune_environment(), scratch_folder("tune") as unread:
        tuner = tune.Tuner(
            tune.with_resources(make_worker(factory), cast(Any, resources)),  # Tune takes a dict as well
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(controller, watch, room=room),
                scheduler=StudyScheduler(controller, watch, resources=resources, timeout_s=timeout_s),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_short_name,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(unread),  # Tune insists on one
                failure_config=tune.FailureConfig(max_failures=-1),  # the controller counts
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
                callbacks=[NoOutput()],
                progress_reporter=NoReport(),
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            stop.set()
        except Exception as error:
            if isinstance(error.__cause__, OutOfMemoryError):
                raise error.__cause__ from error
            if watch.error is not None or not _came_after_the_run(error):
                raise watch.error or error from error
    if watch.error is not None:
        raise watch.error


def _came_after_the_run(error: Exception) -> bool:
    """Whether Tune failed to list its results, which are not read: it does where a trial has ended before it began."""
    return any(frame.f_globals.get("__name__") == ResultGrid.__module__ for frame, _ in walk_tb(error.__traceback__))


def _short_name(trial: object) -> str:
    return f"trial_{getattr(trial, 'trial_id', '')}"
