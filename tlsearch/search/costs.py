"""What an epoch costs by backbone and depth: measured where trials have run, counted elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tlsearch.types import Scalar

# Share of the backbone's forward work that lies in the trained stages, by unfreeze_depth: typical of the pyramids of
# torchvision. Deeper stages of narrow networks have more; measured costs correct it.
_TRAINED = (0.0, 0.15, 0.35, 0.6, 0.85, 1.0)
_HEAD = 0.02  # the head's own work, in passes over the backbone


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Trials of one kind cost the same: the backbone, the depth, and whether stored features may be read."""

    backbone: str
    depth: int
    stored: bool

    @classmethod
    def of(cls, values: Mapping[str, Scalar], *, views: int = 1) -> Kind:
        """The kind of a trial with these values; of those that are not there a trial has the default.

        Args:
            views: Fixed augmented views of the search, ``cache.views``: above 1 their features are stored, too.
        """
        fixed = values.get("augmentation", "none") == "none" or views > 1
        stored = fixed and not values.get("mixup") and not values.get("cutmix")
        depth = values.get("unfreeze_depth") or 0
        assert isinstance(depth, int)
        return cls(backbone=str(values["backbone"]), depth=depth, stored=stored)

    @property
    def passes(self) -> float:
        """An epoch's work, counted in forward passes over the backbone; a training step is three."""
        trained = _TRAINED[min(self.depth, len(_TRAINED) - 1)]
        return _HEAD + 3 * trained + (0.0 if self.stored else 1 - trained)


class Costs:
    """Seconds of an epoch; the measured ones are medians over trials."""

    def __init__(self, measured: Iterable[tuple[Kind, Sequence[float]]]) -> None:
        """Takes each trial's seconds by epoch; without any all is counted, in passes."""
        seconds: dict[Kind, list[float]] = {}
        for kind, epochs in measured:
            if epochs:
                seconds.setdefault(kind, []).append(statistics.median(epochs))
        self._known = {kind: statistics.median(values) for kind, values in seconds.items()}

    def of(self, kind: Kind) -> float:
        """Seconds of an epoch: as measured, else the seconds of a pass, over this backbone or any, times the passes."""
        if kind in self._known:
            return self._known[kind]
        # head-only epochs are mostly overhead: they tell little of a pass
        telling = {one: value for one, value in self._known.items() if one.depth or not one.stored} or self._known
        own = [value / one.passes for one, value in telling.items() if one.backbone == kind.backbone]
        pass_s = statistics.median(own or [value / one.passes for one, value in telling.items()] or [1.0])
        return pass_s * kind.passes
