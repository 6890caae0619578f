"""The search: Ray Tune runs the trials, the durable Optuna study is the only truth.

Names are loaded on first use: a worker, which imports a part of this room alone, must not wait for Optuna.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsearch.core.imports import lazy_names

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

__getattr__ = lazy_names(__name__, __file__)
