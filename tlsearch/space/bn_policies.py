"""The values of ``bn_policy``: what each does to the batch-norm layers of the backbone. A new one is a row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BNPolicy:
    """What batch-norm layers do under one policy; the defaults keep them as they are.

    Attributes:
        meaning: A phrase for the documentation that follows the name.
        recalibrates: Running statistics are estimated once on the training images, before training.
        moves_in_trainable: Training batches move the running statistics in the trainable stages.
        moves_in_frozen: They do so in the frozen stages, too.
        affine_trains: Scale and bias train in the trainable stages; in the frozen ones they never do.
    """

    name: str
    meaning: str
    recalibrates: bool = False
    moves_in_trainable: bool = False
    moves_in_frozen: bool = False
    affine_trains: bool = False

    @property
    def moves(self) -> bool:
        """Whether training batches move running statistics anywhere."""
        return self.moves_in_trainable or self.moves_in_frozen

    @property
    def keeps_all(self) -> bool:
        """Whether every layer keeps its pretrained statistics, scale and bias."""
        return not (self.recalibrates or self.moves or self.affine_trains)

    @property
    def at_depth_0(self) -> bool:
        """Whether it differs from the others where only the head trains."""
        return self.keeps_all or self.recalibrates or self.moves_in_frozen

    @property
    def cacheable(self) -> bool:
        """Whether frozen stages give the same features in every epoch."""
        return not self.moves_in_frozen

    def statistics_move(self, *, frozen: bool) -> bool:
        """Whether training batches move the running statistics of a frozen, or of a trainable, stage."""
        return self.moves_in_frozen if frozen else self.moves_in_trainable


FROZEN = BNPolicy(name="frozen", meaning="keeps them")

BN_POLICIES: Mapping[str, BNPolicy] = {
    one.name: one
    for one in (
        FROZEN,
        BNPolicy(name="train", meaning="trains those of trainable stages", moves_in_trainable=True, affine_trains=True),
        BNPolicy(name="adapt", meaning="estimates their statistics once on the training images", recalibrates=True),
        BNPolicy(
            name="stats",
            meaning="lets the statistics move",
            moves_in_trainable=True,
            moves_in_frozen=True,
            affine_trains=True,
        ),
    )
}


def bn_policy(name: str | None) -> BNPolicy:
    """The policy of a trial; None, of a backbone without batch norm, is ``frozen``.

    Raises:
        ValueError: No such policy.
    """
    if name is None:
        return FROZEN
    if name not in BN_POLICIES:
        raise ValueError(f"bn_policy is one of {', '.join(BN_POLICIES)}, not {name!r}")
    return BN_POLICIES[name]
