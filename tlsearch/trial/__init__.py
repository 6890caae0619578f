"""One trial: an assignment becomes epochs, reports and checkpoints."""

from tlsearch.trial.alone import run_trial
from tlsearch.trial.finetuning import BEST_FOLDER, RUNNING_FOLDER, FineTuning
from tlsearch.trial.held import release_held
from tlsearch.trial.trained import load_trained

__all__ = ["BEST_FOLDER", "RUNNING_FOLDER", "FineTuning", "load_trained", "release_held", "run_trial"]
