"""One trial: an assignment becomes epochs, reports and checkpoints."""

from tlsearch.trial.finetuning import BEST_FOLDER, RUNNING_FOLDER, FineTuning
from tlsearch.trial.fold_training import FoldTraining, open_running
from tlsearch.trial.measurements import taken_by_others, time_calls, time_module, time_one_image, trial_latency
from tlsearch.trial.probe_pass import PROBE_VERSION, frozen_features, probe_backbone, probed_images
from tlsearch.trial.process_cache import release_held
from tlsearch.trial.run_trial import first_batch, keep_start, load_trained, run_trial, train_to
