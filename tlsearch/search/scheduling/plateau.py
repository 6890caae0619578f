"""Whether a search has plateaued: how likely the trials that are left gain enough (``search.stop: auto``).

A pure function of the values of ended trials. If what the sampler proposes next is exchangeable with what it has
proposed, the best of ``j`` further trials beats the best of ``n`` with probability j / (n + j), whatever the
distribution of values. To beat it by a margin, a trial must also pass the margin once it is beyond the best. Above high
values, excesses are close to exponential (Pickands, Annals of Statistics 1975), so the gaps between the best values say
how likely that is. Constants are measured on replays (docs/search_quality.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# 0.2 points of a metric that is a fraction of the images: less than one image in 500, which few validation splits can
# show. Of val_loss the same number: the geometric mean of the probabilities of the true classes grows by 0.2 %, which
# is at most 0.2 points.
MARGIN = 0.002
LEAST_CHANCE = 0.1  # below it the search ends

_LEAST_DRAWN = 4  # trials of the sampler before anything is said
_MANY, _MOST = 100, 1000  # the mean of this many draws is as good as their distribution, whose sum ends there
_NEARLY_ALL = 0.99  # beyond it the mean is as good, too, and the distribution's first weight may be 0


@dataclass(frozen=True, kw_only=True)
class GainRule:
    """The constants that replays have chosen (``benchmarks/stop_when_done.py``).

    Attributes:
        top: The number of best values whose excesses over the next one are looked at.
        prior: An excess that is taken as seen: it keeps ties from saying that nothing lies beyond them.
        credit: The number of random points that the starting points are worth: few of those beat them.
    """

    top: int = 3
    prior: float = 0.003
    credit: int = 32


RULE = GainRule()


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """An ended trial as the rule sees it.

    Attributes:
        gain: Its result, larger is better (``Objective.gain``); None where it has none: it failed, diverged, was
            infeasible or has not seen all folds.
        origin: Why it was tried.
    """

    gain: float | None
    origin: str


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the trials that are left may gain.

    Attributes:
        chance: That one of them is better than the best so far by ``MARGIN``.
        drawn: Trials of the sampler that have ended.
        excess: By how much the best values lie above the next one, as a mean; 0 with fewer than two values.
    """

    chance: float
    drawn: int
    excess: float = 0.0

    @property
    def plateaued(self) -> bool:
        """Whether the search is to end."""
        return self.chance < LEAST_CHANCE


def outlook(ended: Sequence[EndedTrial], *, left: int, ceiling: float, rule: GainRule = RULE) -> Outlook:
    """How likely a gain of ``MARGIN`` is within the trials that are left.

    Args:
        ended: In any order.
        left: Trials that have not begun.
        ceiling: The largest gain that there is: 1 of an accuracy, 0 of a loss.
    """
    drawn = sum(one.origin == "sampler" for one in ended)
    gains = sorted((one.gain for one in ended if one.gain is not None and math.isfinite(one.gain)), reverse=True)
    if drawn < _LEAST_DRAWN or len(gains) < 2:
        return Outlook(chance=1.0, drawn=drawn)
    top = min(rule.top, len(gains) - 1)
    excesses = math.fsum(gain - gains[top] for gain in gains[:top])
    chance = 0.0
    if gains[0] + MARGIN <= ceiling + 1e-9:
        credit = rule.credit if any(one.origin == "starting_point" for one in ended) else 0
        seen = rule.prior + excesses
        passes = (seen / (seen + MARGIN)) ** (1 + top)  # by the Gamma posterior of the exponential's rate
        chance = _chance_of_a_record(passes, tried=drawn + credit, left=left)
    return Outlook(chance=chance, drawn=drawn, excess=excesses / top)


def _chance_of_a_record(passes: float, *, tried: int, left: int) -> float:
    """That one of ``left`` draws beats the best of ``tried`` by a margin that each, if it beats it, passes or not.

    The number of draws that would pass is binomial; of ``j`` such the best beats with probability j / (tried + j).
    """
    mean = passes * left
    if mean > _MANY or passes > _NEARLY_ALL:
        return mean / (tried + mean)
    weight = (1 - passes) ** left  # of 0 draws
    total = 0.0
    for count in range(1, min(left, _MOST) + 1):
        weight *= (left - count + 1) / count * passes / (1 - passes)
        total += weight * count / (tried + count)
    return total
