"""The search: Ray Tune runs the trials, the durable Optuna study is the only truth."""

from tlsearch.search.importance import parameter_importance
from tlsearch.search.lock import Holder, SearchLock, holding
from tlsearch.search.plan import SearchPlan
from tlsearch.search.record import read_search
from tlsearch.search.start import run_search
from tlsearch.search.status import SearchStatus, read_status
from tlsearch.search.stopping import request_stop, wait_until_stopped
from tlsearch.search.supersede import Carried, supersede

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
    "supersede",
    "wait_until_stopped",
]
