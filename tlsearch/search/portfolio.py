"""Points that are known to be good starts of a fine-tuning, whatever the data: what a search tries before its sampler.

Recipes, each on the backbone that is best by then; before them, where the file asks for it (``probe_first``), a
head-only trial of every backbone: with stored features it costs seconds and tells what the backbone is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tlsearch.search.drawing import nearest
from tlsearch.types import Scalar

if TYPE_CHECKING:
    from tlsearch.space import Space

# Head and last stages at rates that keep the pretrained features, rising in cost.
RECIPES: Sequence[Mapping[str, Scalar]] = (
    {"unfreeze_depth": 1, "head_lr": 1e-3, "backbone_lr": 1e-4, "backbone_lr_ratio": 0.1},
    {"unfreeze_depth": 0, "head_lr": 1e-2},
    {"unfreeze_depth": 2, "head_lr": 1e-3, "backbone_lr": 3e-4, "backbone_lr_ratio": 0.3, "augmentation": "light"},
    {"unfreeze_depth": 5, "head_lr": 1e-3, "backbone_lr": 1e-4, "backbone_lr_ratio": 0.1, "augmentation": "light"},
)
_MAX_PROBES = 12


def probes(space: Space) -> list[dict[str, Scalar]]:
    """A head-only point of every backbone, in the order of the space; none where it has no head-only trials.

    Where the space lets a head start from the linear probe, it does.
    """
    found = [_completed(space, {"backbone": backbone, "unfreeze_depth": 0}) for backbone in space.backbones()]
    known = [point for point in found if point is not None][:_MAX_PROBES]
    return [dict(nearest(space, {**point, "head_init": "probe"}).values) for point in known]


def recipe(space: Space, index: int, backbone: str) -> dict[str, Scalar] | None:
    """A recipe's point, moved into the space; None where the space has no such depth."""
    wanted = RECIPES[index]
    base = _completed(space, {"backbone": backbone, "unfreeze_depth": wanted["unfreeze_depth"]})
    return None if base is None else dict(nearest(space, {**base, **wanted, "backbone": backbone}).values)


def _completed(space: Space, entry: Mapping[str, Scalar]) -> dict[str, Scalar] | None:
    try:
        return space.complete(entry)
    except ValueError:  # outside the space
        return None
