"""The user's constraints: what is measured against its limit, and what the sampler is told."""

from __future__ import annotations

from collections.abc import Mapping

MEASURED_BY_WORKERS = ("latency_ms",)  # the others follow from the backbone alone

_UNITS: Mapping[str, str] = {
    "params_millions": "million parameters",
    "checkpoint_mb": "MB",
    "latency_ms": "ms an image",
}


def excess(measured: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """By how much each limit is exceeded, as a share of it; 0 or less where it is kept.

    Shares, since TPE adds what is exceeded over all constraints.
    """
    return {name: measured[name] / limit - 1 for name, limit in limits.items() if name in measured}


def complaint(measured: Mapping[str, float], limits: Mapping[str, float]) -> str:
    """Which limits are broken, in words; empty where all that is known keeps them."""
    return "; ".join(
        f"{measured[name]:.3g} {_UNITS.get(name, name)}, at most {limits[name]:g} (search.constraints.{name})"
        for name, share in excess(measured, limits).items()
        if share > 0
    )
