"""What it takes to screen the backbones of a search, from the timings of this device."""

from __future__ import annotations

from dataclasses import dataclass

from tlsearch.core.types import TrialConfig
from tlsearch.data import ImageIndex
from tlsearch.forecast.trial_costs import Node, TrialCosts
from tlsearch.model import MAX_DEPTH
from tlsearch.search.plan import SearchPlan
from tlsearch.space import is_screened
from tlsearch.trial import probed_images

_RAY_S = 15.0  # a Ray of its own, and the imports of its workers, on two cores


@dataclass(frozen=True, kw_only=True)
class ScreenCost:
    """A screening before a search.

    Attributes:
        backbones: How many take a pass.
        images: Of each pass, train and val together.
        seconds: Until it is decided, on this machine.
    """

    backbones: int
    images: int
    seconds: float


def screen_cost(
    plan: SearchPlan, costs: TrialCosts, stored: Node, index: ImageIndex, *, slots: int
) -> tuple[ScreenCost | None, Node]:
    """The passes of a search that is screened, None where nothing is, and what the node has stored after them.

    A pass over all images of train and val leaves the features that trials of the backbone read.
    """
    if not is_screened(plan.space) or plan.search.listed:
        return None, stored
    probed = probed_images(index)
    num_images = sum(len(probed.splits[name]) for name in ("train", "val"))
    after, total_s, sides = Node(stored=dict(stored.stored)), 0.0, set[int]()
    whole = probed is index and not plan.setup.folds
    for name in plan.space.backbones():
        default = plan.space.to_config(plan.space.complete({"backbone": name}))
        config = TrialConfig(backbone=name, image_size=default.image_size)
        spec, times = costs.spec(config), costs.times(config)
        row_s = costs.images.prepare_s["none"] + times.passed_s(MAX_DEPTH, 0)
        total_s += times.build_s + 2 * times.digest_s + costs.slowdown * num_images * row_s
        sides.add(costs.sides[spec][0])
        for split in ("train", "val") if whole else ():
            after.stored.setdefault(("features", spec, False, 0, split, None), 0.0)
    total_s += len(sides) * num_images * costs.images.decode_s
    count = len(plan.space.backbones())
    cost = ScreenCost(backbones=count, images=num_images, seconds=_RAY_S + total_s / min(slots, count))
    return cost, after
