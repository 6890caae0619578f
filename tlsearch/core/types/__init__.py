"""Frozen dataclasses and small Protocols that cross floors; standard library only.

Units: ``*_s`` seconds, ``*_bytes`` bytes, accuracies are fractions, epochs count from 1,
image sizes are pixels of the square crop. All timestamps are Unix time in seconds.
"""

from tlsearch.core.metrics import Mode, Objective
from tlsearch.core.types.searches import (
    DataSetFacts,
    Finding,
    ParameterImportance,
    SearchObserver,
    SearchRecord,
    Tracker,
    TrialRecord,
)
from tlsearch.core.types.specs import (
    MAX_PIXELS,
    CacheSpec,
    CropMode,
    DataSpec,
    Layout,
    SplitSpec,
    TransformSpec,
    TrialAssignment,
    TrialSetup,
    WeightsSource,
)
from tlsearch.core.types.trial_config import Hyperparameter, Scalar, TrialConfig, hyperparameters
from tlsearch.core.types.trials import (
    INTERRUPTED,
    SYSTEM,
    Decision,
    EndReason,
    EpochReport,
    Reporter,
    RunningTrial,
    StartReport,
    TrialFactory,
    TrialOutcome,
    TrialState,
    best_seen,
    repeatable,
)

__all__ = [
    "Hyperparameter",
    "hyperparameters",
    "INTERRUPTED",
    "CacheSpec",
    "CropMode",
    "DataSetFacts",
    "DataSpec",
    "Decision",
    "EndReason",
    "EpochReport",
    "Finding",
    "Layout",
    "MAX_PIXELS",
    "Mode",
    "Objective",
    "ParameterImportance",
    "Reporter",
    "RunningTrial",
    "SYSTEM",
    "Scalar",
    "SearchObserver",
    "SearchRecord",
    "SplitSpec",
    "StartReport",
    "Tracker",
    "TransformSpec",
    "TrialAssignment",
    "TrialConfig",
    "TrialFactory",
    "TrialOutcome",
    "TrialRecord",
    "TrialSetup",
    "TrialState",
    "WeightsSource",
    "best_seen",
    "repeatable",
]
