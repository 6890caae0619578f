"""Ray Tune as the engine of a search; it is imported with this room, in the driver and in each worker."""

from tlsearch.core.imports import quick_import

quick_import("ray.tune")
