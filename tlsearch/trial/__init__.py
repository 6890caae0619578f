"""One trial: an assignment becomes epochs, reports and checkpoints."""

from tlsearch.trial.alone import keep_start, run_trial
from tlsearch.trial.dry import FirstBatch, first_batch
from tlsearch.trial.finetuning import BEST_FOLDER, RUNNING_FOLDER, FineTuning
from tlsearch.trial.held import release_held
from tlsearch.trial.latency import time_one_image, trial_latency
from tlsearch.trial.trained import load_trained

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
