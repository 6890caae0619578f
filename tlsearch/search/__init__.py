"""The search: Ray Tune runs the trials, the durable Optuna study is the only truth."""

from tlsearch.search.importance import parameter_importance
from tlsearch.search.plan import SearchPlan
from tlsearch.search.record import read_search
from tlsearch.search.start import run_search

__all__ = ["SearchPlan", "parameter_importance", "read_search", "run_search"]
