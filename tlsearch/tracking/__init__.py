"""What people look at: MLflow, and an in-memory twin, behind one Protocol."""

from tlsearch.tracking.best import BestKeeper
from tlsearch.tracking.memory import MemoryRun, MemoryTracker
from tlsearch.tracking.mlflow_tracker import MlflowTracker
from tlsearch.tracking.runs import Origin, model_origin
from tlsearch.tracking.stored_search import find_run_ids, log_search_files

__all__ = [
    "BestKeeper",
    "MemoryRun",
    "MemoryTracker",
    "MlflowTracker",
    "Origin",
    "find_run_ids",
    "log_search_files",
    "model_origin",
]
