"""Runs a search on Ray Tune: a new Tuner at every start, driven by the study alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import count
from traceback import walk_tb

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune import ResultGrid

from tlsearch.core.errors import ClusterError
from tlsearch.core.types import SearchObserver, TrialFactory
from tlsearch.core.user_folders import scratch_folder
from tlsearch.search.cluster.connect import connected
from tlsearch.search.cluster.dashboard import telling_dashboard
from tlsearch.search.controller.controller import Conductor
from tlsearch.search.plan import SearchPlan
from tlsearch.search.ray_tune.bridge import Watch
from tlsearch.search.ray_tune.resources import LiveLimit, alive_nodes, trial_resources
from tlsearch.search.ray_tune.scheduler import StudyScheduler
from tlsearch.search.ray_tune.searcher import StudySearcher
from tlsearch.search.ray_tune.trainable import fine_tuning, make_worker
from tlsearch.search.ray_tune.tune_settings import NoOutput, tune_environment
from tlsearch.search.study.lock import SearchLock
from tlsearch.search.study.rdb import database_errors
from tlsearch.search.study.stop_request import heeding_stop_requests
from tlsearch.search.study.storage import open_for_writing, study_attrs

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
    with database_errors(plan.search.study):
        return _run(plan, factory or fine_tuning, observers, stop or threading.Event(), lock)


def _run(
    plan: SearchPlan,
    factory: TrialFactory,
    observers: Sequence[SearchObserver],
    stop: threading.Event,
    lock: SearchLock | None,
) -> str:
    attrs = study_attrs(plan)
    study = open_for_writing(plan.folder, mode=plan.setup.mode, attrs=attrs, url=plan.search.study, lock=lock)

    def begun() -> Conductor:
        return Conductor(plan, study, observers=observers, stop=stop)

    try:
        conductor = begun()
        if not conductor.exhausted:
            with (
                heeding_stop_requests(plan.folder, study.holder, stop),
                connected(plan.address) as dashboard,
                telling_dashboard(plan.folder.dashboard, dashboard),
            ):
                conductor = _tune_on(plan, conductor, begun, factory, stop)
        if conductor.failure is not None:
            raise conductor.failure
        return conductor.finish()
    finally:
        study.close()


def _tune_on(
    plan: SearchPlan,
    conductor: Conductor,
    begun: Callable[[], Conductor],
    factory: TrialFactory,
    stop: threading.Event,
) -> Conductor:
    """Runs Tune, anew where a node's memory ran out: Ray then kills workers, which ends Tune (2.60) with an error.

    Args:
        conductor: Of the first run.
        begun: Makes one for each further run, from the study.

    Returns:
        The conductor of the last run.

    Raises:
        ClusterError: It ran out more often than ``max_failures``; the search can be resumed.
    """
    for failures in count(1):
        try:
            _tune(plan, conductor, factory, stop)
        except OutOfMemoryError as error:
            if failures > plan.search.max_failures:
                raise ClusterError(
                    f"the memory of a node ran out {failures} times, and Ray killed its workers each time; nothing is "
                    f"lost: resume with fewer trials at a time (resources.max_concurrent), or with other programs "
                    f"ended. Ray says: {str(error).splitlines()[0]}"
                ) from error
            logger.warning("the memory of a node ran out; the trials go on from their checkpoints: %s", error)
            conductor = begun()
        else:
            return conductor
    raise AssertionError("count() ends never")


def _tune(plan: SearchPlan, conductor: Conductor, factory: TrialFactory, stop: threading.Event) -> None:
    """One run of Tune, until the conductor is exhausted and no trial is live."""
    per_trial = trial_resources(plan.resources, alive_nodes())
    live_limit = LiveLimit(per_trial, plan.resources.max_concurrent)
    timeout_s = plan.search.trial_timeout_s
    watch = Watch()
    with tune_environment(), scratch_folder("tune") as unread:
        tuner = tune.Tuner(
            tune.with_resources(make_worker(factory), per_trial),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(conductor, watch, live_limit=live_limit),
                scheduler=StudyScheduler(conductor, watch, timeout_s=timeout_s),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_short_name,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(unread),  # Tune insists on one
                failure_config=tune.FailureConfig(max_failures=-1),  # the conductor counts
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
                callbacks=[NoOutput()],
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
    """Whether Tune failed to list its results, which nobody reads: it does where a trial has ended before it began."""
    return any(frame.f_globals.get("__name__") == ResultGrid.__module__ for frame, _ in walk_tb(error.__traceback__))


def _short_name(trial: object) -> str:
    return f"trial_{getattr(trial, 'trial_id', '')}"
