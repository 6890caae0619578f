"""The loop, the metrics and the checkpoints of a fine-tuning."""

from tlsearch.config.model_folder import ModelMeta, TensorFile, read_model_file
from tlsearch.train.averaging import WeightAverage, moving_state
from tlsearch.train.checkpoints import (
    FrozenPart,
    copy_with_temperature,
    read_model_meta,
    read_model_state,
    save_confusion,
    save_model_checkpoint,
    write_frozen_part,
)
from tlsearch.train.drift import feature_drift, probe_features
from tlsearch.train.evaluation import EVAL_BATCH_SIZE, Evaluation, check_finite, evaluate, predict_logits
from tlsearch.train.files import read_json, read_tensors, remove_others, write_json, write_tensors
from tlsearch.train.loop import Trainer, TrainFigures
from tlsearch.train.optimizer import build_optimizer, extend_optimizer
from tlsearch.train.phases import depth_at, phases
from tlsearch.train.probe import Probe, affordable_rows, fit_probe, solve_probe
from tlsearch.train.runtime import (
    Runtime,
    derive_seed,
    is_out_of_memory,
    open_runtime,
    out_of_memory_is_infeasible,
    release_memory,
)
from tlsearch.train.source import Source, load_batch

__all__ = [
    "EVAL_BATCH_SIZE",
    "Evaluation",
    "FrozenPart",
    "ModelMeta",
    "Probe",
    "Runtime",
    "Source",
    "TensorFile",
    "TrainFigures",
    "Trainer",
    "WeightAverage",
    "build_optimizer",
    "check_finite",
    "copy_with_temperature",
    "depth_at",
    "derive_seed",
    "affordable_rows",
    "evaluate",
    "fit_probe",
    "extend_optimizer",
    "feature_drift",
    "is_out_of_memory",
    "load_batch",
    "moving_state",
    "open_runtime",
    "out_of_memory_is_infeasible",
    "phases",
    "probe_features",
    "predict_logits",
    "read_json",
    "read_model_file",
    "read_model_meta",
    "read_model_state",
    "read_tensors",
    "release_memory",
    "remove_others",
    "save_confusion",
    "save_model_checkpoint",
    "solve_probe",
    "write_frozen_part",
    "write_json",
    "write_tensors",
]
