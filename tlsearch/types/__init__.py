"""Frozen dataclasses and small Protocols that cross floors; standard library only.

Units: ``*_s`` seconds, ``*_bytes`` bytes, accuracies are fractions, epochs count from 1,
image sizes are pixels of the square crop. All timestamps are Unix time in seconds.
"""

from tlsearch.types.searches import (
    Finding,
    ParameterImportance,
    SearchObserver,
    SearchRecord,
    Tracker,
    TrialRecord,
)
from tlsearch.types.specs import (
    METRIC_MODES,
    CacheSpec,
    CropMode,
    DataSpec,
    Mode,
    Scalar,
    SplitSpec,
    TransformSpec,
    TrialAssignment,
    TrialConfig,
    TrialSetup,
    WeightsSource,
)
from tlsearch.types.trials import (
    INTERRUPTED,
    REASONS,
    SYSTEM,
    Decision,
    EpochReport,
    Reporter,
    RunningTrial,
    TrialFactory,
    TrialOutcome,
    TrialState,
    repeatable,
)

__all__ = [
    "INTERRUPTED",
    "CacheSpec",
    "CropMode",
    "DataSpec",
    "Decision",
    "EpochReport",
    "Finding",
    "METRIC_MODES",
    "Mode",
    "ParameterImportance",
    "REASONS",
    "Reporter",
    "RunningTrial",
    "SYSTEM",
    "Scalar",
    "SearchObserver",
    "SearchRecord",
    "SplitSpec",
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
    "repeatable",
]
