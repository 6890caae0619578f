"""One trial: an assignment becomes epochs, reports and checkpoints."""

from tlsearch.trial.finetuning import BEST_FOLDER, RUNNING_FOLDER, FineTuning
from tlsearch.trial.first_batch import FirstBatch, first_batch
from tlsearch.trial.latency import time_one_image, trial_latency
from tlsearch.trial.load_trained import load_trained
from tlsearch.trial.process_cache import release_held
from tlsearch.trial.run_trial import keep_start, run_trial

__all__ = [
    "BEST_FOLDER",
    "RUNNING_FOLDER",
    "FineTuning",
    "FirstBatch",
    "first_batch",
    "keep_start",
    "load_trained",
    "release_held",
    "run_trial",
    "time_one_image",
    "trial_latency",
]
