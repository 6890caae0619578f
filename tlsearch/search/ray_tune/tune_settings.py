"""How Tune is kept quiet and out of the way: settings, files, output."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback

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
