"""Frozen dataclasses and small Protocols that cross floors; standard library only.

Units: ``*_s`` seconds, ``*_bytes`` bytes, accuracies are fractions, epochs count from 1,
image sizes are pixels of the square crop. All timestamps are Unix time in seconds.
"""

from tlsearch.core.metrics import Mode, Objective
from tlsearch.core.types.images import MAX_CHANNELS, RGB8, CropMode, PixelFormat, TransformSpec
from tlsearch.core.types.screens import ProbedBackbone, Screen, ScreenObserver
from tlsearch.core.types.search_records import ParameterImportance, SearchRecord, TrialRecord
from tlsearch.core.types.searches import (
    DataSetFacts,
    Finding,
    RecordedSearch,
    SearchObserver,
    Tracker,
)
from tlsearch.core.types.specs import (
    CONTEXT_BYTES,
    MAX_PIXELS,
    CacheSpec,
    DataSpec,
    ModelSpec,
    SplitSpec,
    TrialAssignment,
    TrialSetup,
    WeightsSource,
)
from tlsearch.core.types.trial_config import (
    SOLVED_HEADS,
    TRAINED,
    Hyperparameter,
    Scalar,
    TrialConfig,
    hyperparameters,
)
from tlsearch.core.types.trials import (
    FOLD_EPOCH,
    INTERRUPTED,
    SYSTEM,
    Decision,
    EndReason,
    EpochReport,
    Plateau,
    Reporter,
    RunningTrial,
    StartReport,
    TrialFactory,
    TrialOutcome,
    TrialState,
    best_seen,
    repeatable,
)
