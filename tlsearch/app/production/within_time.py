"""Search, confirmation and promotion within one time: what each may take, by what the search's trials took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from tlsearch.core.types import SearchRecord, TrialRecord

SEARCH_SHARE = 0.7  # of the time; the rest is for confirm and promote
_PROMOTE_S = 45.0  # the test split, the registry and the model card
_START_S = 25.0  # of Ray, and of the confirmation's own MLflow run
_TRAINING_S = 2.0  # of a training beside its epochs
_CAUTION = 1.3
# Configurations and seeds of a confirmation, the most convincing first.
_SIZES: Sequence[tuple[int, int]] = ((3, 3), (3, 2), (2, 3), (2, 2))


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """The time of a command that searches, confirms and promotes.

    Attributes:
        total_s: From the command's start on; None is without limit.
    """

    total_s: float | None
    timer: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)

    @property
    def search_s(self) -> float | None:
        """The budget of the search: the same however long the command took to start, so that it can be resumed."""
        return None if self.total_s is None else self.total_s * SEARCH_SHARE

    @property
    def confirm_s(self) -> float | None:
        """What is left for a confirmation, with enough after it for the promotion; may be below 0."""
        return None if self.total_s is None else self.total_s - (self.timer() - self.began) - _PROMOTE_S


@dataclass(frozen=True, kw_only=True)
class ConfirmPlan:
    """A confirmation that fits, or why there is none.

    Attributes:
        top: Configurations; 0 for no confirmation.
        seeds: Of each.
        reason: Why there is none; empty where there is one.
    """

    top: int = 0
    seeds: int = 0
    reason: str = ""


def plan_confirm(
    record: SearchRecord, candidates: Sequence[TrialRecord], *, num_reports: int, left_s: float | None
) -> ConfirmPlan:
    """The largest confirmation that fits into the time.

    Args:
        record: The search, ended.
        candidates: Its best configurations, best first.
        num_reports: Of each training: its epochs, or folds.
        left_s: Seconds for it; None is without limit.
    """
    if len(candidates) < 2:
        return ConfirmPlan(reason="one configuration alone has a result: there is nothing to compare it with")
    concurrency = _concurrency(record)
    needed = 0.0
    for top, seeds in _SIZES:
        taken = candidates[:top]
        work = seeds * sum(_training_s(one, num_reports) for one in taken)
        needed = _START_S + _CAUTION * work / concurrency
        if left_s is None or needed <= left_s:
            return ConfirmPlan(top=len(taken), seeds=seeds)
    left = max(0.0, left_s or 0.0)
    return ConfirmPlan(
        reason=f"training the best two again, twice, takes about {needed:.0f} s, and {left:.0f} s are left"
    )


def _training_s(trial: TrialRecord, num_reports: int) -> float:
    return num_reports * (fmean(trial.epoch_seconds) if trial.epoch_seconds else 0.0) + _TRAINING_S


def _concurrency(record: SearchRecord) -> float:
    """How many trials ran at a time, on average; at least one."""
    ends = [(o.started, o.ended) for o in record.trials if o.started is not None and o.ended is not None]
    if not ends:
        return 1.0
    wall = max(end for _, end in ends) - min(start for start, _ in ends)
    return max(1.0, sum(end - start for start, end in ends) / wall) if wall > 0 else 1.0
