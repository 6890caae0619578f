"""What other tools call the keys of a space file: timm, fastai, Keras, Hugging Face, Lightning, Optuna, Ray Tune."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Our key with its section, and other names of it; blanks, dashes and underscores in them do not count.
_OTHERS: Mapping[str, str] = {
    "space.backbone": "model models arch architecture net network encoder base_model model_name pretrained_model",
    "space.unfreeze_depth": "depth freeze unfreeze freeze_depth freeze_layers unfreeze_layers frozen_stages"
    " trainable_layers",
    "space.head_lr": "lr lrs learning_rate learning_rates base_lr init_lr initial_lr max_lr lr0 lr_max lr_head"
    " head_learning_rate classifier_lr",
    "space.backbone_lr": "lr_backbone backbone_learning_rate encoder_lr body_lr base_model_lr finetune_lr fine_tune_lr",
    "space.bn_policy": "bn batch_norm batchnorm freeze_bn bn_mode train_bn norm",
    "space.unfreeze_schedule": "gradual_unfreezing progressive unfreezing",
    "space.adapt": "peft peft_type peft_method adapter adapters lora ssf bitfit",
    "space.lora_rank": "rank lora_r r",
    "space.augmentation": "aug augs augment augmentations aa auto_augment transforms data_augmentation batch_tfms",
    "space.weight_decay": "wd decay l2 l2_regularization weight_decay_rate",
    "space.batch_size": "bs batch batches batch_sizes train_batch_size per_device_train_batch_size",
    "space.optimizer": "opt optim optimiser optimizer_name opt_func",
    "space.layer_decay": "llrd layerwise_lr_decay layer_wise_lr_decay lr_decay lr_decay_rate",
    "space.lr_schedule": "sched schedule lr_scheduler lr_scheduler_type scheduler lr_sched",
    "space.warmup_epochs": "warmup num_warmup_epochs warmup_steps warmup_ratio",
    "space.grad_clip": "clip clip_grad clipnorm clip_norm max_grad_norm gradient_clip_val gradient_clipping",
    "space.label_smoothing": "smoothing label_smooth label_smoothing_factor",
    "space.features": "token_features global_pool pool pooling tokens",
    "space.head": "classifier head_type",
    "space.head_penalty": "penalty ridge_alpha l2_penalty regularization regularisation",
    "space.head_dropout": "dropout drop drop_rate dropout_rate ps p_dropout classifier_dropout",
    "space.mixup": "mixup_alpha mix_up",
    "space.cutmix": "cutmix_alpha cut_mix",
    "space.class_balance": "class_weight class_weights weighted balance balanced oversampling weighted_sampler",
    "space.head_init": "init head_initialization probe",
    "space.ema": "model_ema ema_decay use_ema averaging",
    "data.image_size": "img_size imgsz resolution input_size crop_size input_shape size",
    "data.channels": "in_chans in_channels num_channels n_channels bands num_bands",
    "data.bits": "bit_depth depth bits_per_channel",
    "space.image_size": "image_sizes img_sizes resolutions input_sizes sizes",
    "data.path": "root dir folder data_dir data_path dataset directory train_dir image_dir images",
    "data.source": "type kind format",
    "data.split.val": "val_split valid_pct validation_split val_size val_fraction valid validation",
    "data.split.test": "test_split test_size test_fraction",
    "data.split.group_by": "groups group group_column",
    "search.trials": "num_trials n_trials num_samples max_trials n_iter iterations runs",
    "search.max_epochs": "epochs epoch num_epochs n_epochs n_epoch num_train_epochs max_epoch nepochs",
    "search.folds": "k_folds kfold k_fold n_folds num_folds n_splits cv cross_validation",
    "search.time_budget": "timeout time max_time budget time_budget_s time_limit",
    "search.metric": "objective monitor score metric_for_best_model target",
    "search.objectives": "directions metrics multi_objective pareto",
    "search.sampler": "algo algorithm search_alg searcher strategy",
    "search.scheduler": "pruner asha early_stop",
    "search.start_with": "points_to_evaluate enqueue initial_points starting initial",
    "search.patience": "early_stopping early_stopping_patience",
    "search.stop": "terminator stop_when_done auto_stop",
    "search.seed": "random_seed random_state rng",
    "search.max_failures": "retries max_retries",
    "resources.gpus_per_trial": "gpu gpus num_gpus n_gpus device devices",
    "resources.cpus_per_trial": "cpu cpus num_cpus num_workers workers",
    "resources.max_concurrent": "n_jobs jobs parallel max_concurrent_trials concurrency",
    "resources.precision": "amp fp16 bf16 mixed_precision dtype",
    "tracking.uri": "mlflow mlflow_uri tracking_uri backend_store_uri server",
    "tracking.keep_best": "save_top_k save_total_limit keep_checkpoints_num keep",
    "storage": "output output_dir out_dir save_dir log_dir storage_path local_dir results_dir",
    "name": "experiment experiment_name project study_name run_name title",
}
_PLAIN = re.compile(r"[\s_.-]+")


def _plain(name: str) -> str:
    return _PLAIN.sub("", name).lower()


_KEYS = {_plain(key.rpartition(".")[2]): key for key in _OTHERS}
_ALIASES = {_plain(other): key for key, others in _OTHERS.items() for other in others.split()}


def alias(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that other tools call so; None where there is none."""
    plain, right = _plain(name), set(names)
    for key, others in _OTHERS.items():
        ours = key.rpartition(".")[2]
        if ours in right and plain in {_plain(other) for other in (ours, *others.split())}:
            return ours
    return None


def home(name: str) -> str | None:
    """Where a key of another section, or what other tools call so, stands in a space file: ``space.head_lr``."""
    return _KEYS.get(_plain(name)) or _ALIASES.get(_plain(name))
