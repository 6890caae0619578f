"""What people look at: MLflow, and an in-memory twin, behind one Protocol."""

from tlsearch.tracking.runs import TrackedSearch, model_origin
from tlsearch.tracking.sink.best_models import BestKeeper
from tlsearch.tracking.sink.mlflow_tracker import MlflowTracker
from tlsearch.tracking.stored_search import find_run_ids, log_search_files
