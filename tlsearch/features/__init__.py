"""The frozen-prefix feature store."""

from tlsearch.features.keys import PASS_BATCH_SIZE, FeatureKey, combined_digest, library_versions, tensor_digests
from tlsearch.features.solutions import open_solution
from tlsearch.features.store import Features, NotStored, find_features, open_features
from tlsearch.features.validity import Boundary, measure_boundary, view_of, why_not, why_not_worth

__all__ = [
    "PASS_BATCH_SIZE",
    "Boundary",
    "FeatureKey",
    "Features",
    "NotStored",
    "combined_digest",
    "find_features",
    "library_versions",
    "measure_boundary",
    "open_features",
    "open_solution",
    "tensor_digests",
    "view_of",
    "why_not",
    "why_not_worth",
]
