"""The frozen-prefix feature store."""

from tlsearch.features.feature_cache import (
    PASS_BATCH_SIZE,
    FeatureKey,
    Features,
    NotStored,
    combined_digest,
    find_features,
    library_versions,
    open_features,
    open_solution,
    pass_batch_size,
    tensor_digests,
)
from tlsearch.features.validity import Boundary, measure_boundary, view_of, why_not, why_not_worth
