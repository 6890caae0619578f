"""Which stages train in which epoch: at once, or one more with each phase."""

from __future__ import annotations

from tlsearch.core.errors import UserError
from tlsearch.core.types import TrialConfig


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
