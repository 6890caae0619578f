"""What people look at: MLflow, and an in-memory twin, behind one Protocol."""

from tlsearch.tracking.artifacts import log_search_files
from tlsearch.tracking.best import BestKeeper
from tlsearch.tracking.memory import MemoryRun, MemoryTracker
from tlsearch.tracking.mlflow_tracker import MlflowTracker, find_run_ids
from tlsearch.tracking.origin import Origin, model_origin

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
