"""The search's front door; Ray is imported when a search runs, not before."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tlsearch.core.types import SearchObserver, TrialFactory
from tlsearch.search.cluster.connect import settle_authentication
from tlsearch.search.plan import SearchPlan
from tlsearch.search.study.lock import SearchLock


def run_search(
    plan: SearchPlan,
    *,
    factory: TrialFactory | None = None,
    observers: Sequence[SearchObserver] = (),
    stop: threading.Event | None = None,
    lock: SearchLock | None = None,
) -> str:
    """Runs a search until its budget ends, or goes on with one.

    Everything comes from the study in the plan's folder: trials that an earlier start left RUNNING
    go on from their checkpoints, then come WAITING ones, then new ones. The observers hear of what
    happens from now on; ``trial_started`` comes again for trials that go on.

    Args:
        plan: The search; its budgets are totals over all starts.
        factory: Opens a trial in its worker; None is the real fine-tuning.
        observers: Called on this thread after the study has been written.
        stop: When set, the search ends within seconds; running trials stay RUNNING in the study.
        lock: The search's, where the caller holds it already.

    Returns:
        ``finished``, ``interrupted`` (resumable), ``budget`` (the time is spent) or ``space``: every configuration
        of the space has been tried before all trials were spent.

    Raises:
        SearchStopped: One error came too often in a row.
        ClusterError: Ray cannot be reached or holds no trial.
        StorageError: The study is in use, damaged, or cannot be written.
    """
    settle_authentication(plan.address)
    from tlsearch.search.ray_tune.tuner import run

    return run(plan, factory=factory, observers=observers, stop=stop, lock=lock)
