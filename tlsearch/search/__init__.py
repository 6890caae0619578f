"""The search: Ray Tune runs the trials, the durable Optuna study is the only truth.

Names are loaded on first use: a worker, which imports a part of this room alone, must not wait for Optuna.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlsearch.search.cluster.connect import starting_ray
    from tlsearch.search.controller.migrate import Carried, supersede
    from tlsearch.search.inspect.importance import parameter_importance
    from tlsearch.search.inspect.running_status import SearchStatus, read_status
    from tlsearch.search.plan import SearchPlan
    from tlsearch.search.start import run_search
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

_HOMES = {
    "Carried": "controller.migrate",
    "Holder": "study.lock",
    "SearchLock": "study.lock",
    "SearchPlan": "plan",
    "SearchStatus": "inspect.running_status",
    "holding": "study.lock",
    "parameter_importance": "inspect.importance",
    "read_search": "study.records",
    "read_status": "inspect.running_status",
    "request_stop": "study.stop_request",
    "run_search": "start",
    "starting_ray": "cluster.connect",
    "supersede": "controller.migrate",
    "wait_until_stopped": "study.stop_request",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
