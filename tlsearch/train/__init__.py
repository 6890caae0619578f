"""The loop, the metrics and the checkpoints of a fine-tuning."""

from tlsearch.config.checkpoint_meta import ModelMeta, TensorFile
from tlsearch.config.ensemble_meta import read_ensemble_meta
from tlsearch.train.checkpoint.ensemble_checkpoint import (
    copy_calibrated,
    ensemble_member,
    networks_of,
    save_ensemble,
)
from tlsearch.train.checkpoint.frozen_part import FrozenPart, share_frozen_part, write_frozen_part
from tlsearch.train.checkpoint.model_checkpoints import (
    MAX_LOGITS,
    read_model_meta,
    read_model_state,
    save_confusion,
    save_model_checkpoint,
    save_val_logits,
)
from tlsearch.train.checkpoint.tensor_files import read_json, read_tensors, remove_others, write_json, write_tensors
from tlsearch.train.checkpoint.write_thread import Writer, copy_to_host
from tlsearch.train.cka import feature_drift, probe_features
from tlsearch.train.closed_form import Spectrum, solve_layer, spectrum_of
from tlsearch.train.device import (
    Runtime,
    open_runtime,
    out_of_memory_is_infeasible,
    release_memory,
    trial_runtime,
)
from tlsearch.train.linear_probe import Probe, affordable_rows, fit_probe, solve_probe
from tlsearch.train.loop.batches import FeatureSource, PixelSource, Source, ViewSource, load_batch
from tlsearch.train.loop.device_rows import release_copies
from tlsearch.train.loop.ema import moving_state
from tlsearch.train.loop.evaluation import (
    EVAL_BATCH_SIZE,
    Evaluation,
    Reading,
    check_finite,
    evaluate,
    in_batches,
    predict_logits,
)
from tlsearch.train.loop.loss import LOSSES
from tlsearch.train.loop.soft_targets import (
    holds_soft_targets,
    mixed_with_labels,
    read_soft_targets,
    write_soft_targets,
)
from tlsearch.train.loop.trainer import Trainer, TrainFigures
from tlsearch.train.optim.optimizer import learning_rates
from tlsearch.train.optim.schedules import depth_at, phases
