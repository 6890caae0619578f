"""Backbones as stem, four stages and head: weights, freezing, batch-norm policy, parameter groups."""

from tlsearch.model.adapters.adaptation import Adaptation
from tlsearch.model.batchnorm.folding import fold_batchnorm
from tlsearch.model.batchnorm.recalibration import adapt_statistics, normalising_by_batch
from tlsearch.model.build import build_model, build_original, meta_model, replace_head, untrained_model
from tlsearch.model.describe import ModelDescription, adapted_parameters, describe_model
from tlsearch.model.libraries.libraries import default_transform
from tlsearch.model.param_groups import parameter_groups
from tlsearch.model.staging.part import Part, batchnorm_layers
from tlsearch.model.staging.staged import MAX_DEPTH, PART_NAMES, StagedModel
from tlsearch.model.weights.resolve import (
    Weights,
    WeightsCard,
    check_weights,
    release_weights,
    resolve_weights,
    weights_card,
    weights_digest,
    weights_transform,
)
from tlsearch.model.weights.timm_counterpart import TimmCounterpart, timm_counterpart
