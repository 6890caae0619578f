"""The search: Ray Tune runs the trials, the durable Optuna study is the only truth."""

from tlsearch.search.cluster.connect import starting_ray
from tlsearch.search.controller.migrate import Carried, supersede
from tlsearch.search.inspect.importance import parameter_importance
from tlsearch.search.inspect.running_status import SearchStatus, read_status
from tlsearch.search.plan import SearchPlan
from tlsearch.search.ray_tune.start import run_search
from tlsearch.search.study.lock import Holder, SearchLock, holding
from tlsearch.search.study.records import read_search
from tlsearch.search.study.stop_request import request_stop, wait_until_stopped

__all__ = [
    "Carried",
    "Holder",
    "SearchLock",
    "SearchPlan",
    "SearchStatus",
    "holding",
    "parameter_importance",
    "read_search",
    "read_status",
    "request_stop",
    "run_search",
    "starting_ray",
    "supersede",
    "wait_until_stopped",
]
