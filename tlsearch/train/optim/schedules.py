"""Learning rates and unfreezing over the steps of a trial: pure functions of the position, nothing to store.

A position is the number of optimiser steps before this one, counted from 0 at the first step of epoch 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tlsearch.core.errors import UserError
from tlsearch.core.types import TrialConfig

_ONE_CYCLE_RISE = 0.3  # share of the steps, where warmup_epochs does not say: torch's OneCycleLR
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1 / 25e4
_JOIN_STEPS = 100  # the longest warmup of a stage that joins; never more than half an epoch


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The factor on every learning rate.

    ``constant`` stays at 1; ``cosine`` falls from 1 towards 0 at the end of the last epoch; both rise linearly from
    near zero through ``warmup_epochs`` first. ``one_cycle`` rises from 1/25 to 1 and falls to nothing, both as half a
    cosine (Smith and Topin 2018); it rises through ``warmup_epochs``, or where that is 0 through 30 % of the steps.
    """

    kind: str = "constant"
    warmup_epochs: int = 0
    max_epochs: int = 1

    @property
    def moves(self) -> bool:
        """Whether the factor is ever another than 1."""
        return self.kind != "constant" or self.warmup_epochs > 0

    def factor(self, position: int, steps_per_epoch: int) -> float:
        """The factor of one step, in (0, 1]."""
        last, rise = self.max_epochs * steps_per_epoch, self.warmup_epochs * steps_per_epoch
        if self.kind == "one_cycle":
            rise = rise or max(1, round(_ONE_CYCLE_RISE * last))
            if position < rise:
                return _half_cosine(_ONE_CYCLE_START, 1.0, position / rise)
            return _half_cosine(1.0, _ONE_CYCLE_END, (position - rise) / max(1, last - rise))
        if position < rise:
            return (position + 1) / rise
        if self.kind == "cosine":
            return _half_cosine(1.0, 0.0, (position - rise) / max(1, last - rise))
        return 1.0


def schedule_of(config: TrialConfig, max_epochs: int) -> Schedule:
    """The schedule of a trial."""
    return Schedule(kind=config.lr_schedule, warmup_epochs=config.warmup_epochs, max_epochs=max_epochs)


def join_factor(steps_since: int, steps_per_epoch: int) -> float:
    """The factor on the rate of a stage that joined ``steps_since`` steps ago: its own short linear warmup."""
    length = min(_JOIN_STEPS, math.ceil(steps_per_epoch / 2))
    return min(1.0, (steps_since + 1) / length)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def phases(config: TrialConfig, max_epochs: int) -> tuple[tuple[int, int], ...]:
    """The phases of a trial as (first epoch, unfreeze depth), in order.

    ``at_once`` is one phase. ``progressive`` to depth d has d + 1: the head first, then one stage more with each; phase
    k, from 0, begins at epoch floor(k * max_epochs / (d + 1)) + 1.

    Raises:
        UserError: A progressive trial has fewer epochs than phases.
    """
    depth = config.unfreeze_depth
    if config.unfreeze_schedule != "progressive" or depth == 0:
        return ((1, depth),)
    if max_epochs < depth + 1:
        raise UserError(
            f"unfreeze_schedule progressive needs max_epochs of at least unfreeze_depth + 1, {depth + 1}, "
            f"not {max_epochs}"
        )
    return tuple((k * max_epochs // (depth + 1) + 1, k) for k in range(depth + 1))


def depth_at(config: TrialConfig, max_epochs: int, epoch: int) -> int:
    """The unfreeze depth of an epoch, which counts from 1."""
    return max(depth for start, depth in phases(config, max_epochs) if start <= epoch)
