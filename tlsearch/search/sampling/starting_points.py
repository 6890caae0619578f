"""Points known to be good starts of a fine-tuning, whatever the data: what a search tries before its sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tlsearch.core.types import Scalar
from tlsearch.search.sampling.drawing import nearest

if TYPE_CHECKING:
    from tlsearch.space import Space

# Head and last stages at rates that keep the pretrained features, rising in cost.
STARTING_POINTS: Sequence[Mapping[str, Scalar]] = (
    {"unfreeze_depth": 1, "head_lr": 1e-3, "backbone_lr": 1e-4, "backbone_lr_ratio": 0.1},
    {"unfreeze_depth": 0, "head_lr": 1e-2},
    {"unfreeze_depth": 2, "head_lr": 1e-3, "backbone_lr": 3e-4, "backbone_lr_ratio": 0.3, "augmentation": "light"},
    {"unfreeze_depth": 5, "head_lr": 1e-3, "backbone_lr": 1e-4, "backbone_lr_ratio": 0.1, "augmentation": "light"},
)


def starting_point(space: Space, index: int, backbone: str) -> Mapping[str, Scalar] | None:
    """A starting point of a backbone, moved into the space; None where the space has no such depth."""
    wanted = STARTING_POINTS[index]
    try:
        base = space.complete({"backbone": backbone, "unfreeze_depth": wanted["unfreeze_depth"]})
    except ValueError:  # outside the space
        return None
    return nearest(space, {**base, **wanted, "backbone": backbone})
