"""Runs a search on Ray Tune: a new Tuner at every start, driven by the study alone."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ray import tune

from tlsearch.search.conductor import Conductor
from tlsearch.search.connect import connected
from tlsearch.search.plan import SearchPlan
from tlsearch.search.resources import LiveLimit, alive_nodes, trial_resources
from tlsearch.search.scheduler import StudyScheduler
from tlsearch.search.searcher import StudySearcher
from tlsearch.search.study import open_for_writing, study_attrs
from tlsearch.search.trainable import fine_tuning, make_worker
from tlsearch.search.watch import Watch
from tlsearch.types import SearchObserver, TrialFactory

logger = logging.getLogger(__name__)

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


def run(
    plan: SearchPlan,
    *,
    factory: TrialFactory | None = None,
    observers: Sequence[SearchObserver] = (),
    stop: threading.Event | None = None,
) -> str:
    """See ``tlsearch.search.run_search``."""
    stop = stop or threading.Event()
    study = open_for_writing(plan.folder, mode=plan.setup.mode, attrs=study_attrs(plan))
    try:
        conductor = Conductor(plan, study, observers=observers, stop=stop)
        if not conductor.exhausted:
            with connected(plan.address):
                _tune(plan, conductor, factory or fine_tuning, stop)
        if conductor.failure is not None:
            raise conductor.failure
        return conductor.reason
    finally:
        study.close()


def _tune(plan: SearchPlan, conductor: Conductor, factory: TrialFactory, stop: threading.Event) -> None:
    """One run of Tune, until the conductor is exhausted and no trial is live."""
    per_trial = trial_resources(plan.resources, alive_nodes())
    live_limit = LiveLimit(per_trial, plan.resources.max_concurrent)
    max_failures = plan.search.max_failures
    watch = Watch()
    with _environment(), _throwaway() as storage_path:
        tuner = tune.Tuner(
            tune.with_resources(make_worker(factory), per_trial),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(conductor, watch, live_limit=live_limit, max_failures=max_failures),
                scheduler=StudyScheduler(conductor, watch, max_failures=max_failures),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_short_name,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=storage_path,
                failure_config=tune.FailureConfig(max_failures=-1),  # the conductor counts
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            stop.set()
        except Exception as error:
            raise watch.error or error from error
    if watch.error is not None:
        raise watch.error


def _short_name(trial: object) -> str:
    return f"trial_{getattr(trial, 'trial_id', '')}"


@contextmanager
def _environment() -> Iterator[None]:
    """Tune's settings are variables of the environment; also keeps its SIGUSR1 handler from staying."""
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


@contextmanager
def _throwaway() -> Iterator[str]:
    """A folder for the files that Tune insists on."""
    path = tempfile.mkdtemp(prefix="tlsearch-tune-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
